"""`crfrnn.refine`: against a brute-force CRF, against the layer, types in and out, and every refusal."""

import inspect

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.refine.refine import refine
from crfrnn.data.images import open_image, rgb_pixels
from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.inference.recurrence import mean_field
from crfrnn.layer import CRFRNN
from crfrnn.parameters import DEFAULT, PRESETS, parse_kernel
from tests.support.compare import assert_equal

LABELS, HEIGHT, WIDTH = 5, 40, 56


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.ascontiguousarray(data.chelsea()[60 : 60 + HEIGHT, 100 : 100 + WIDTH])


def random_probabilities(labels: int = LABELS, size: tuple[int, int] = (HEIGHT, WIDTH), seed: int = 0) -> np.ndarray:
    scores = np.exp(2 * np.random.default_rng(seed).standard_normal((labels, *size)))
    return (scores / scores.sum(0)).astype(np.float32)


@pytest.fixture(scope="module")
def probabilities() -> np.ndarray:
    return random_probabilities()


def brute_force(image, probabilities, kernels, normalization: str, iterations: int, spacing=(1, 1)) -> np.ndarray:
    """Mean field in float64 with whole N x N kernel matrices and Potts as pydensecrf writes it: + w for one's own."""
    labels, *size = probabilities.shape
    positions = np.stack([places.ravel() for places in np.indices(size)], axis=1) * np.array(spacing, float)
    colours = image.reshape(len(positions), -1).astype(float)
    matrices = []
    for kernel in kernels:
        if isinstance(kernel, Bilateral):
            points = np.column_stack([positions / kernel.theta_alpha, colours / kernel.theta_beta])
        else:
            points = positions / kernel.theta_gamma
        matrix = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1) / 2)
        n = matrix.sum(1, keepdims=True)
        scale = {"after": matrix / n, "symmetric": matrix / np.sqrt(n * n.T), "before": matrix / n.T, "none": matrix}
        matrices.append(kernel.weight * scale[normalization])
    unary = np.log(probabilities.reshape(labels, -1).astype(float))
    q = probabilities.reshape(labels, -1).astype(float)
    for _ in range(iterations):
        scores = unary + q @ np.sum(matrices, axis=0).T
        q = np.exp(scores - scores.max(0))
        q /= q.sum(0)
    return q.reshape(probabilities.shape)


@pytest.mark.parametrize("normalization", ["after", "symmetric", "before"])
def test_equals_a_brute_force_crf(image, normalization):
    small, p = image[:9, :12], random_probabilities(3, (9, 12))
    kernels = [Bilateral(6, 20, weight=2, method="exact"), Spatial(1.5, weight=1, method="exact")]
    expected = brute_force(small, p, kernels, normalization, iterations=4)
    actual = refine(small, p, kernels=kernels, normalization=normalization, iterations=4)
    assert_equal("marginals", actual, expected.astype(np.float32), 1e-4)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_the_layer(name, image, probabilities):
    preset = PRESETS[name]
    layer = CRFRNN(LABELS, preset.kernels, kernel_weights="scalar", normalization=preset.normalization).eval()
    guide = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = layer(torch.from_numpy(probabilities)[None].log(), guide).softmax(1)[0].numpy()
    actual = refine(image, probabilities, preset=name)
    assert_equal(name, actual, expected, 1e-4)
    assert_equal("sums", actual.sum(0), np.ones((HEIGHT, WIDTH), np.float32), 1e-5)


def test_the_published_presets():
    published = {
        "crfrnn": ((Bilateral(160, 3, weight=5), Spatial(3, weight=3)), "after"),
        "pydensecrf": ((Bilateral(80, 13, weight=10), Spatial(3, weight=3)), "symmetric"),
        "deeplab-v1": ((Bilateral(49, 5, weight=4), Spatial(3, weight=3)), "after"),
        "deeplab-v2": ((Bilateral(67, 3, weight=4), Spatial(1, weight=3)), "symmetric"),
    }
    assert published == {name: (PRESETS[name].kernels, PRESETS[name].normalization) for name in published}
    assert set(PRESETS) == {"present", *published}
    assert inspect.signature(refine).parameters["preset"].default == DEFAULT == "present"
    assert RefineOptions.preset == DEFAULT


def test_agrees_with_pydensecrf():
    """It filters positions with a lattice too, refine() exactly: hence not the same numbers, but the same answer."""
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    image = data.chelsea()
    height, width = image.shape[:2]
    coarse = 2 * torch.randn(1, LABELS, 10, 15, generator=torch.Generator().manual_seed(0))
    p = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").softmax(1)[0].numpy()
    crf = densecrf.DenseCRF2D(width, height, LABELS)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(p).reshape(LABELS, -1)))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    expected = np.array(crf.inference(5)).reshape(p.shape)
    actual = refine(image, p, preset="pydensecrf", iterations=5)
    assert np.abs(actual - expected).mean() <= 1e-3
    assert (actual.argmax(0) == expected.argmax(0)).mean() >= 0.995


def test_sharpens_a_shifted_edge():
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, 20:] = 200
    right = np.full((30, 40), 0.3, np.float32)
    right[:, 24:] = 0.7  # four columns too far to the right
    refined = refine(image, np.stack([1 - right, right]), preset="pydensecrf").argmax(0)
    assert (refined == (image[..., 0] > 0)).all()


def test_numpy_and_torch_give_the_same(image, probabilities):
    expected = refine(image, probabilities, iterations=3)
    pixels, values = torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(probabilities)
    actual = refine(pixels, values, iterations=3)
    assert isinstance(expected, np.ndarray)
    assert isinstance(actual, torch.Tensor)
    assert not actual.is_inference()  # may take part in autograd afterwards
    assert_equal("torch", actual.numpy(), expected, 1e-6)
    mixed = refine(image, values, iterations=3)
    assert isinstance(mixed, torch.Tensor)
    assert_equal("mixed", mixed.numpy(), expected, 1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_the_dtype_comes_back(image, probabilities, dtype):
    actual = refine(image, probabilities.astype(dtype), iterations=2)
    assert actual.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.abs(actual - refine(image, probabilities, iterations=2)).max() < 5e-3


def test_torch_dtypes_come_back(image, probabilities):
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert refine(image, torch.from_numpy(probabilities).to(dtype), iterations=1).dtype == dtype
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(probabilities).argmax(0), LABELS).permute(2, 0, 1)
    assert refine(image, one_hot, iterations=1).dtype == torch.float32


def test_logits_are_probabilities_up_to_a_constant(image, probabilities):
    logits = np.log(probabilities) + np.random.default_rng(1).standard_normal((1, HEIGHT, WIDTH)).astype(np.float32)
    expected = refine(image, probabilities, iterations=3)
    assert_equal("logits", refine(image, logits=logits, iterations=3), expected, 1e-4)


def test_labels_last_is_told_apart_and_comes_back(image, probabilities):
    expected = np.moveaxis(refine(image, probabilities, iterations=3), 0, -1)
    actual = refine(image, np.ascontiguousarray(np.moveaxis(probabilities, 0, -1)), iterations=3)
    assert actual.shape == (HEIGHT, WIDTH, LABELS)
    assert_equal("labels last", actual, expected, 1e-6)


def test_memory_that_torch_cannot_see(image, probabilities):
    expected = refine(image, probabilities, iterations=2)
    locked = probabilities.copy()
    locked.flags.writeable = False
    assert_equal("read-only", refine(image, locked, iterations=2), expected, 1e-6)
    flipped = refine(image[:, ::-1], probabilities[..., ::-1], iterations=2)
    assert_equal("reversed", flipped, refine(image[:, ::-1].copy(), probabilities[..., ::-1].copy(), iterations=2), 0)
    before = probabilities.copy()
    refine(image, probabilities, iterations=2)
    assert_equal("the caller's array", probabilities, before, 0)


def test_other_guides(image, probabilities):
    grey = refine(image[..., 0], probabilities, iterations=2)
    assert_equal("one channel", grey, refine(image[..., :1], probabilities, iterations=2), 0)
    depth = image.astype(np.float32).mean(-1) / 255
    kernels = [Bilateral(40, 0.05, weight=5)]
    assert refine(depth, probabilities, kernels=kernels).shape == probabilities.shape
    many = np.random.default_rng(2).standard_normal((HEIGHT, WIDTH, 6)).astype(np.float32)
    assert refine(many, probabilities, kernels=kernels).shape == probabilities.shape
    floats = refine(image.astype(np.float64), probabilities, iterations=2)
    assert_equal("float image in 0..255", floats, refine(image, probabilities, iterations=2), 1e-6)


@pytest.mark.parametrize(("white", "said"), [(1023, True), (4095, True), (65535, False)])
def test_whole_numbers_of_16_bits(image, probabilities, recwarn, tmp_path, white, said):
    grey = image[..., 0]
    deep = np.rint(grey * (white / 255)).astype(np.uint16)
    deep[0, 0] = white
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    photo = rgb_pixels(open_image(tmp_path / "deep.tif"))[..., 0]  # what the command line works on
    expected = refine(photo, probabilities, iterations=2)
    assert_equal("NumPy", refine(deep, probabilities, iterations=2), expected, 0)
    several = torch.from_numpy(deep.astype(np.int64)), torch.from_numpy(probabilities)
    assert_equal("torch", refine(*several, iterations=2), torch.from_numpy(expected), 0)
    messages = {str(warning.message) for warning in recwarn.list}
    assert [f"no value is above {white}," in message for message in messages] == [True] * said
    own = [Bilateral(40, 3 * white / 255, weight=5)]  # kernels in the image's own units leave it alone
    in_255 = refine(deep * np.float32(255 / white), probabilities, kernels=[Bilateral(40, 3, weight=5)], iterations=2)
    assert_equal("own units", refine(deep, probabilities, kernels=own, iterations=2), in_255, 1e-3)


def test_kernels_and_normalization_take_the_presets_place(image, probabilities):
    preset = PRESETS["pydensecrf"]
    expected = refine(image, probabilities, preset="pydensecrf", iterations=2)
    same = refine(image, probabilities, kernels=preset.kernels, normalization="symmetric", iterations=2)
    assert_equal("kernels", same, expected, 0)
    other = refine(image, probabilities, preset="pydensecrf", normalization="after", iterations=2)
    assert np.abs(other - expected).max() > 1e-3


def test_no_iteration_gives_the_input_back(image, probabilities):
    assert_equal("T = 0", refine(image, probabilities, iterations=0), probabilities, 1e-5)


def test_certainty_stays_finite(image):
    certain = np.zeros((2, HEIGHT, WIDTH), np.float32)
    certain[0] = 1
    assert_equal("certain", refine(image, certain), certain, 1e-6)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_list_equals_single_calls(threads, torch_threads, image):
    torch_threads(threads)
    images = [image, image[:30], image[:, :20], np.ascontiguousarray(image[::-1])]
    given = [random_probabilities(3 + n, picture.shape[:2], seed=n) for n, picture in enumerate(images)]
    together = refine(images, given, iterations=3)
    assert isinstance(together, list)
    for number, (picture, p, actual) in enumerate(zip(images, given, together, strict=True)):
        assert_equal(f"number {number}", actual, refine(picture, p, iterations=3), 1e-5)
    assert refine([], [], iterations=3) == []


def wrong(probabilities: np.ndarray, how: str) -> np.ndarray:
    p = probabilities.copy()
    if how == "negative":
        p[0, 3, 4], p[1, 3, 4] = -0.01, p[1, 3, 4] + p[0, 3, 4] + 0.01
    elif how == "nan":
        p[2, 5, 6] = np.nan
    elif how == "sum":
        p[:, 7, 8] *= 0.5
    return p


@pytest.mark.parametrize("how", ["negative", "nan", "sum"])
def test_what_are_no_probabilities(image, probabilities, how):
    words = {"negative": "smallest is", "nan": "NaN", "sum": "instead of 1"}
    with pytest.raises(ValueError, match=f"^probabilities: .*{words[how]}"):
        refine(image, wrong(probabilities, how))


REFUSED = {
    "size": (lambda i, p: refine(i, p[:, :-1]), r"^probabilities: shape .* expected \(labels, 40, 56\), or "),
    "swapped": (lambda i, p: refine(i, p.transpose(0, 2, 1)), "^probabilities: .*height and width are swapped"),
    "batch": (lambda i, p: refine(i, p[None].repeat(2, 0)), "^probabilities: .*go in lists"),
    "image batch": (lambda i, p: refine(i[None].repeat(2, 0), p), "^image: shape .*go in lists"),
    "text": (lambda i, p: refine(i, p.astype(str)), "^probabilities: expected an array of numbers"),
    "neither": (lambda i, p: refine(i), "^probabilities: give either"),
    "both": (lambda i, p: refine(i, p, logits=p), "^probabilities: give either"),
    "infinite logits": (lambda i, p: refine(i, logits=np.where(p > 0.9, np.inf, p)), "^logits: NaN or infinity"),
    "preset": (lambda i, p: refine(i, p, preset="deeplab"), "^preset: 'deeplab' is none of present, crfrnn, pyd"),
    "normalization": (lambda i, p: refine(i, p, normalization="sym"), "^normalization: 'sym' is none of after"),
    "iterations": (lambda i, p: refine(i, p, iterations=-1), "^iterations: "),
    "kernels": (lambda i, p: refine(i, p, kernels=[]), "^kernels: give at least one"),
    "0..1": (lambda i, p: refine(i / 255.0, p), "^image: values 0.*counts in 0..255"),
    "normalised": (lambda i, p: refine(i / 64.0 - 2, p), "^image: values -.*counts in 0..255"),
    "beyond 0..255": (lambda i, p: refine(i * 257.0, p), "^image: .*counts in 0..255"),
    "beyond 16 bits": (lambda i, p: refine(i.astype(np.int32) * 999, p), "^image: .*counts in 0..255"),
    "nan image": (lambda i, p: refine(np.where(i > 99, np.nan, i), p), "^image: NaN or infinity"),
    "half a list": (lambda i, p: refine([i], p), "^image: one of image and probabilities is a list"),
    "lengths": (lambda i, p: refine([i], [p, p]), "^image: 1 images, but 2 probabilities"),
    "in a list": (lambda i, p: refine([i] * 3, [p, p, p[:1] - 1]), "^number 2 of the list: probabilities: the small"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_their_argument(case, image, probabilities):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call(image, probabilities)


def test_sums_may_be_off_by_what_storage_does(image, probabilities):
    stored = np.round(probabilities * 255).astype(np.float32) / 255
    assert np.abs(stored.sum(0) - 1).max() > 1e-3
    assert np.abs(refine(image, stored, iterations=2).sum(0) - 1).max() < 1e-5


def test_refine_is_the_recurrence(image, probabilities):
    """The one place where the recurrence is called does it with Potts and one weight for each kernel."""
    kernels = (Bilateral(30, 10, weight=4), Spatial(2, weight=1.5))
    guide = torch.from_numpy(image).permute(2, 0, 1)[None]
    filters = [kernel.prepare(guide) for kernel in kernels]
    logits = torch.from_numpy(probabilities).log()[None]
    y = mean_field(logits, filters, torch.tensor([[4.0], [1.5]]), 1 - torch.eye(LABELS), 6)
    assert_equal(
        "marginals", refine(image, probabilities, kernels=kernels, iterations=6), y.softmax(1)[0].numpy(), 1e-5
    )


def test_parse_kernel():
    assert parse_kernel("bilateral:80,13,10") == Bilateral(80, 13, weight=10)
    assert parse_kernel("bilateral:80,13") == Bilateral(80, 13)
    assert parse_kernel("spatial:3") == Spatial(3)
    assert parse_kernel("spatial:3,0.5") == Spatial(3, weight=0.5)
    for text in (
        "bilateral:80",
        "gauss:3,3",
        "spatial",
        "spatial:a",
        "bilateral:1,2,3,4",
        "spatial:nan",
        "spatial:-1,3",
    ):
        with pytest.raises(ValueError, match=r"^kernel: "):
            parse_kernel(text)


def test_labels_that_occur_nowhere_are_left_out_within_the_stated_bound():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    logits = rng.normal(0, 1, (6, 30, 40)).astype(np.float32)
    logits[[1, 4]] -= 12  # nowhere above 1e-3
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    assert probabilities[[1, 4]].max() < 1e-3 < probabilities[[0, 2, 3, 5]].max(axis=(1, 2)).min()
    both = [
        (refine(image, probabilities, tolerance=0), refine(image, probabilities)),
        (refine(image, logits=logits, tolerance=0), refine(image, logits=logits)),
    ]
    for every, some in both:
        assert (some[[1, 4]] == 0).all()
        assert every[[1, 4]].max() < 1e-3 * np.exp(8 * 1e-3)
        np.testing.assert_allclose(some, every, atol=2e-3)
    with pytest.raises(ValueError, match="tolerance"):
        refine(image, probabilities, tolerance=0.5)
