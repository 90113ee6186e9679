"""What `refine` takes: predictions of binary networks, axes of length 1, impossible labels, and who is blamed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from PIL import Image

from crfrnn.commands.fit import sample
from crfrnn.commands.fit.fit import Images, Together
from crfrnn.commands.refine.inputs import checked, with_background
from crfrnn.commands.refine.refine import refine as typed
from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.parameters import CRFParameters
from tests.commands.refine.test_refine import brute_force

refine: Any = typed  # callers give it anything
LABELS, HEIGHT, WIDTH = 4, 12, 17


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def foreground() -> np.ndarray:
    return np.random.default_rng(1).random((HEIGHT, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def probabilities() -> np.ndarray:
    scores = np.exp(2 * np.random.default_rng(2).standard_normal((LABELS, HEIGHT, WIDTH)))
    return (scores / scores.sum(0)).astype(np.float32)


BINARY = [(HEIGHT, WIDTH), (1, HEIGHT, WIDTH), (HEIGHT, WIDTH, 1), (1, 1, HEIGHT, WIDTH)]


@pytest.mark.parametrize("shape", BINARY)
def test_a_foreground_alone_is_two_labels_and_comes_back_as_it_came(image, foreground, shape):
    expected = refine(image, np.stack([1 - foreground, foreground]), iterations=3)[1].reshape(shape)
    assert_allclose(refine(image, foreground.reshape(shape), iterations=3), expected, atol=1e-6)
    logits = (np.log(foreground) - np.log1p(-foreground)).reshape(shape)
    assert_allclose(refine(image, logits=logits, iterations=3), expected, atol=1e-4)
    half = foreground.astype(np.float16).reshape(shape)
    actual, expected = (
        refine(image, torch.from_numpy(half), iterations=3),
        refine(image, half.astype(np.float32), iterations=3),
    )
    assert actual.dtype == torch.float16
    assert_allclose(actual.numpy(), expected, atol=1e-3)


def test_logits_of_a_foreground_are_those_of_a_sigmoid(image):
    """[0, x]; [1 - x, x], which was once advised, is the softmax of other numbers."""
    x = 5 * np.random.default_rng(3).standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    expected = refine(image, logits=np.stack([np.zeros_like(x), x]), tolerance=0)[1]
    assert_allclose(refine(image, logits=x, tolerance=0), expected, atol=1e-5)
    assert_allclose(refine(image, logits=x, iterations=0), 1 / (1 + np.exp(-x)), atol=1e-6)
    assert_allclose(
        refine(image, logits=x, temperature=2.0), refine(image, logits=x / 2), atol=1e-5, err_msg="temperature"
    )


def test_a_certain_foreground(image):
    certain = np.where(np.arange(WIDTH) < 8, np.inf, -np.inf) * np.ones((HEIGHT, 1))
    assert_allclose(refine(image, logits=certain), certain > 0, atol=1e-6)
    assert_allclose(refine(image, certain > 0), certain > 0, atol=1e-6)
    assert refine(image, certain > 0).dtype == np.float32


def test_other_arguments_know_background_and_foreground(image, foreground):
    both = np.stack([1 - foreground, foreground])
    for options in (
        {"preset": "pydensecrf", "normalization": "after"},
        {"class_weights": [[0.2, 1.0], [1.0, 0.5]]},
        {"solver": "damped:0.5", "tolerance": 0},
        {"self_connection": False, "accuracy": 2},
    ):
        expected = refine(image, both, iterations=3, **options)[1]
        assert_allclose(refine(image, foreground, iterations=3, **options), expected, atol=1e-6, err_msg=str(options))
    moments = []
    last = refine(image, foreground[None], iterations=2, trace=moments.append)
    assert [moment.marginals.shape for moment in moments] == [(1, HEIGHT, WIDTH)] * 3
    assert_allclose(moments[-1].marginals, last)
    together = refine([image] * 3, [foreground, foreground[None], both], iterations=2)
    assert [one.shape for one in together] == [(HEIGHT, WIDTH), (1, HEIGHT, WIDTH), (2, HEIGHT, WIDTH)]
    assert_allclose(together[0], together[2][1], atol=1e-6)


def test_axes_of_length_one(image, probabilities):
    expected = refine(image, probabilities, iterations=2)
    last = np.moveaxis(expected, 0, -1)
    for shape in ((1, LABELS, HEIGHT, WIDTH), (LABELS, 1, HEIGHT, WIDTH)):  # a batch of one, nnU-Net
        actual = refine(image, probabilities.reshape(shape), iterations=2)
        assert_allclose(actual, expected.reshape(shape), atol=1e-6)
    channels_last = np.moveaxis(probabilities, 0, -1)[None]
    assert_allclose(refine(image[None], channels_last, iterations=2), last[None], atol=1e-6)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    actual = refine(batch, torch.from_numpy(probabilities)[None], iterations=2)
    assert_allclose(actual.numpy(), expected[None], atol=1e-6)


@pytest.mark.parametrize("tolerance", [0, 1e-3])
def test_impossible_labels(image, tolerance):
    """Minus infinity in some pixels, in one label everywhere, in all labels but one: as a logit of -1e4."""
    logits = np.random.default_rng(4).standard_normal((LABELS, HEIGHT, WIDTH)).astype(np.float32)
    logits[0, :, :5] = -np.inf
    logits[2] = -np.inf
    logits[1:, 3] = -np.inf
    kernels = [Bilateral(6, 20, weight=2, method="exact"), Spatial(1.5, weight=1, method="exact")]
    options = {"kernels": kernels, "iterations": 3, "tolerance": tolerance}
    logits[0, 3] = 0.5
    finite = np.where(np.isinf(logits), np.float32(-1e4), logits)
    probabilities = np.exp(finite - finite.max(0)) / np.exp(finite - finite.max(0)).sum(0)
    with np.errstate(divide="ignore"):
        expected = brute_force(image, probabilities, kernels, "after", 3)
    actual = refine(image, logits=logits, **options)
    assert_allclose(actual, expected, atol=1e-4)
    assert (actual[np.isinf(logits)] == 0).all()
    for more in ({"temperature": 0.5}, {"solver": "damped:0.5"}):
        q = refine(image, logits=logits, **options, **more)
        assert np.isfinite(q).all()
        assert (q[np.isinf(logits)] <= 1e-20).all()
    moments = []
    refine(image, logits=logits, **options, trace=moments.append)
    assert np.isfinite([moment.free_energy for moment in moments]).all()
    with pytest.raises(ValueError, match=r"^logits: a pixel has no label above"):
        refine(image, logits=np.where(np.arange(WIDTH) == 2, -np.inf, logits))


def test_impossible_labels_of_other_dtypes(image):
    logits = np.random.default_rng(4).standard_normal((3, HEIGHT, WIDTH))
    logits[1, 2:5] = -np.inf
    expected = refine(image, logits=logits, iterations=2)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        actual = refine(image, logits=torch.from_numpy(logits).to(dtype), iterations=2)
        assert_allclose(actual.float().numpy(), expected, atol=0.02)


def test_a_fit_takes_the_same(image, foreground, monkeypatch):
    truth = (foreground > 0.4).astype(np.uint8)
    with np.errstate(divide="ignore"):
        both, logit = np.stack([1 - foreground, foreground]), np.where(foreground > 0.95, np.inf, foreground * 4 - 2)
    crf = {"crf": CRFParameters.of_preset("crfrnn", iterations=2), "none": None}
    expected = Images(Together([image], [both], [truth])).measured(0, crf)
    actual = Images(Together([image], [foreground[None]], [truth])).measured(0, crf)
    assert all(torch.equal(actual[name], expected[name]) for name in crf)
    for pixels in (sample.PIXELS, HEIGHT * WIDTH // 5):  # of its own size, and scaled
        monkeypatch.setattr(sample, "PIXELS", pixels)
        searched = Images(Together([image], [logit], [truth]), logits=True).sample(0)
        assert (searched.classes, bool(searched.unary.isfinite().all())) == (2, True)
    assert checked(image, foreground, "probabilities")[1].shape == (1, 2, HEIGHT, WIDTH)


def test_background_in_arrays_and_tensors():
    x = torch.tensor([[[-3.0, 0.0, 2.0, float("inf"), float("-inf")]]])
    assert_allclose(with_background(x, "logits").softmax(0)[1], x[0].sigmoid(), atol=1e-7)
    assert with_background(np.array([[[0.25]]], np.float16), "probabilities").dtype == np.float32
    three = np.zeros((3, 1, 1))
    assert with_background(three, "probabilities") is three


def test_long_doubles_and_numbers_of_numpy(image, probabilities):
    expected = refine(image, probabilities, iterations=5)
    actual = refine(image.astype(np.longdouble), probabilities.astype(np.longdouble), iterations=np.int64(5))
    assert actual.dtype == np.longdouble
    assert_allclose(actual, expected, atol=1e-6)
    nothing_masked = np.ma.masked_array(probabilities, mask=np.zeros_like(probabilities, bool))
    assert_allclose(refine(image, nothing_masked, iterations=5), expected, atol=1e-6)
    assert_allclose(refine(Image.fromarray(image), probabilities, iterations=5), expected, atol=1e-6)


def masked(array: np.ndarray) -> np.ma.MaskedArray:
    return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) == 3)


VOLUME = (5, HEIGHT, WIDTH)
REFUSED = {
    "channels first": (
        lambda i, p: refine(i.transpose(2, 0, 1), p),
        r"^image: shape \(3, 12, 17\).*transpose\(1, 2, 0\)$",
    ),
    "channels first, foreground": (lambda i, p: refine(i.transpose(2, 0, 1), p[0]), r"^image: .*transpose\(1, 2, 0\)$"),
    "channels last": (lambda i, p: refine(torch.from_numpy(i), torch.from_numpy(p)), r"^image: .*permute\(2, 0, 1\)$"),
    "grey volume": (
        lambda i, p: refine(np.zeros(VOLUME), np.zeros((2, *VOLUME))),
        r"^image: .*a volume.*spacing=\(z, y, x\)",
    ),
    "volume": (
        lambda i, p: refine(np.zeros((*VOLUME, 3)), np.zeros((2, *VOLUME))),
        "^image: .*volume needs its spacing=",
    ),
    "volume of torch": (
        lambda i, p: refine(torch.zeros(3, *VOLUME), torch.zeros(2, *VOLUME)),
        "^image: .*volume needs its spacing=",
    ),
    "two images of two labels": (
        lambda i, p: refine(np.stack([i, i]), np.stack([p[:2], p[:2]])),
        r"^image: .*lists, refine\(list\(images\), list",
    ),
    "images": (
        lambda i, p: refine(np.stack([i, i]), np.stack([p, p])),
        r"^image: .*lists, refine\(list\(images\), list",
    ),
    "a number": (lambda i, p: refine(np.float32(3), p), r"^image: shape \(\), expected one of \(height, width\)"),
    "a number of torch": (lambda i, p: refine(torch.tensor(3.0), p), r"^image: shape \(\), expected one of"),
    "five axes": (lambda i, p: refine(i[None, None], p), "^image: shape .* expected one of"),
    "predictions": (lambda i, p: refine(i, np.stack([p, p])), "^probabilities: shape .* several images go in lists"),
    "flat": (lambda i, p: refine(i, p.reshape(LABELS, -1)), r"^probabilities: .*reshape\(-1, 12, 17\)"),
    "swapped foreground": (lambda i, p: refine(i, p[0].T), "^probabilities: .*height and width are swapped"),
    "foreground of another size": (lambda i, p: refine(i, p[0, :-1]), r"^probabilities: .* or \(12, 17\) of a foregr"),
    "8-bit mask": (lambda i, p: refine(i, (p[0] * 255).astype(np.uint8)), "^probabilities: the largest .* by 255"),
    "logits of a foreground": (lambda i, p: refine(i, p[0] - 0.5), "^probabilities: the smallest .* logits="),
    "NaN in a foreground": (lambda i, p: refine(i, np.where(p[0] > 0.5, np.nan, p[0])), "^probabilities: NaN"),
    "NaN in its logits": (lambda i, p: refine(i, logits=np.where(p[0] > 0.5, np.nan, p[0])), "^logits: NaN"),
    "nothing": (lambda i, p: refine(i, p[:0]), "^probabilities: .*nothing in it"),
    "no image": (lambda i, p: refine(i[:0], p), "^image: .*nothing in it"),
    "masked image": (lambda i, p: refine(masked(i), p), "^image: a masked array.*filled"),
    "masked probabilities": (lambda i, p: refine(i, masked(p)), "^probabilities: a masked array.*filled"),
    "masked logits": (lambda i, p: refine(i, logits=masked(p)), "^logits: a masked array.*filled"),
    "None": (lambda i, p: refine(None, p), "^image: expected an array of numbers, got NoneType"),
    "a path": (lambda i, p: refine(Path("cat.png"), p), "^image: expected an array of numbers, got .*Path"),
    "a name": (lambda i, p: refine(i, "p.npy"), "^probabilities: expected an array of numbers, got str"),
    "a dictionary": (lambda i, p: refine(i, logits={"out": p}), "^logits: expected an array of numbers, got dict"),
    "objects": (
        lambda i, p: refine(i, p.astype(object)),
        "^probabilities: expected an array of numbers, got one of obj",
    ),
    "complex": (lambda i, p: refine(i, torch.from_numpy(p) + 0j), "^probabilities: expected a dense tensor of real"),
    "sparse": (lambda i, p: refine(i, torch.from_numpy(p).to_sparse()), "^probabilities: expected a dense tensor"),
    "meta": (lambda i, p: refine(i, torch.from_numpy(p).to("meta")), "^probabilities: .*the meta device"),
    "ragged": (
        lambda i, p: refine([i], [[[1.0], [1.0, 2.0]]]),
        "^number 0 of the list: probabilities: expected an array",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_blame_the_argument_that_is_wrong(case, image, probabilities):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call(image, probabilities)


def test_the_channels_of_a_batch_are_no_volume(image, probabilities):
    """(5, 3, H, W) beside an image (3, H, W): five predictions of three labels."""
    picture, batch = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8), torch.full((5, 3, HEIGHT, WIDTH), 1 / 3)
    with pytest.raises(ValueError, match=r"^probabilities: .*several images go in lists"):
        refine(picture, batch)


def test_the_volume_goes_where_the_message_says():
    volume, p = np.zeros(VOLUME, np.uint8), np.full((2, *VOLUME), 0.5)
    for one, q in ((volume, p), (np.zeros((*VOLUME, 3), np.uint8), p), (torch.zeros(3, *VOLUME), torch.from_numpy(p))):
        assert refine(one, q, spacing=(1, 1, 1), iterations=1).shape == p.shape
