"""The drop-in answers as pydensecrf does (golden.npz, from make_golden.py), and says no where pydensecrf crashes."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import crfrnn.pydensecrf.densecrf as dcrf
from crfrnn.pydensecrf import utils
from tests.pydensecrf.cases import (
    ITERATIONS,
    LABEL_AGREEMENT,
    MEAN_DIFFERENCE,
    NORMALIZATIONS,
    PARAMETERS,
    agreement,
    compatibilities,
    marginals,
    problem,
    run_script,
    strokes,
    volume,
)

FIXED_POINT = 0.5 / 65535  # rounding of the golden marginals
RNG = np.random.default_rng(5)
H, W, L = 7, 9, 3
PHOTO = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
ENERGY = RNG.random((L, H * W), dtype=np.float32)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).with_name("golden.npz")) as arrays:
        return dict(arrays)


def small(compat: object = 3.0, energy: object = ENERGY, **options) -> dcrf.DenseCRF2D:
    """An image of 9 by 7 with one bilateral kernel."""
    crf = dcrf.DenseCRF2D(W, H, L)
    crf.setUnaryEnergy(energy)  # pyright: ignore[reportArgumentType]
    crf.addPairwiseBilateral(**{"sxy": 4, "srgb": 60, "rgbim": PHOTO, "compat": compat, **options})
    return crf


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("labels", [2, 21])
def test_marginals_are_pydensecrfs(golden, labels, parameters, normalization):
    case = problem(golden["photo"], labels)
    for n, q in zip(ITERATIONS, marginals(dcrf, case, parameters, normalization), strict=True):
        key = f"{labels}/{parameters}/{normalization}/{n}"
        assert q.dtype == np.float32
        assert q.shape == case.energy.shape
        np.testing.assert_allclose(q.sum(axis=0), 1, atol=1e-5)
        difference = np.abs(q[:, golden["sample"]] - golden[f"{key}/marginals"] / 65535).mean()
        assert difference <= MEAN_DIFFERENCE / 10 + FIXED_POINT  # a tenth of what is promised
        assert (q.argmax(axis=0) == golden[f"{key}/labels"]).mean() >= LABEL_AGREEMENT


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("name", compatibilities(3))
def test_compatibilities_steps_and_divergence_are_pydensecrfs(golden, name, normalization):
    q, divergence = volume(dcrf, utils, compatibilities(3)[name], normalization)
    key = f"volume/{name}/{normalization}"
    np.testing.assert_allclose(q, golden[key], atol=1e-5)
    np.testing.assert_allclose(divergence, golden[f"{key}/divergence"], rtol=1e-5, atol=1e-3)


def test_a_users_script_gives_the_same_labels_after_the_import_lines_are_changed(golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = golden["photo"]
    Image.fromarray(photo).save("photo.png")
    Image.fromarray(strokes(*photo.shape[:2])).save("strokes.png")
    results = run_script("crfrnn.pydensecrf")
    np.testing.assert_array_equal(results["by_inference"], golden["script/labels"])
    np.testing.assert_array_equal(np.array(Image.open("labels.png")), golden["script/labels"])
    np.testing.assert_allclose(results["divergence"], golden["script/divergence"], rtol=1e-5)
    assert len(np.unique(golden["script/labels"])) == 2


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_live_against_pydensecrf(golden, parameters, normalization):
    """Where pydensecrf2 is installed: every pixel of a photo whose number of pixels is no multiple of 4."""
    theirs = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed (pip install pydensecrf2)")
    case = problem(np.ascontiguousarray(golden["photo"][:53, :67]), labels=4)
    mine, other = (marginals(module, case, parameters, normalization) for module in (dcrf, theirs))
    for q, p in zip(mine, other, strict=True):
        difference, share = agreement(q, p)
        assert difference <= MEAN_DIFFERENCE
        assert share >= LABEL_AGREEMENT


def test_stepping_is_inference():
    crf = small()
    crf.addPairwiseGaussian(3, np.array([-1, -2, -3], np.float32))
    q, tmp1, tmp2 = crf.startInference()
    view = q.reshape(L, H, W)
    np.testing.assert_allclose(q, crf.inference(0), atol=1e-7)
    for n in range(1, 4):
        crf.stepInference(q, tmp1, tmp2)
        np.testing.assert_allclose(q, crf.inference(n), atol=1e-6)
    np.testing.assert_array_equal(view.reshape(L, -1), q)  # updated in place


def test_iterations_may_be_numbers_of_numpy():
    crf = dcrf.DenseCRF2D(4, 3, 2)
    crf.setUnaryEnergy(np.arange(24, dtype=np.float32).reshape(2, 12) % 5)
    crf.addPairwiseGaussian(sxy=2, compat=3)
    np.testing.assert_array_equal(crf.inference(np.int64(3)), crf.inference(3))


def test_stepping_goes_on_from_the_callers_marginals():
    crf, other = small(), small()
    q, *tmp = crf.startInference()
    crf.stepInference(q, *tmp)
    mine = np.asfortranarray(q)  # another array in another layout
    other.stepInference(mine, *tmp)
    np.testing.assert_allclose(mine, crf.inference(2), atol=1e-6)


def test_number_vector_and_matrix_of_the_same_penalty_agree():
    expected = small(2.0).inference(5)
    assert np.abs(expected - small(1.0).inference(5)).max() > 0.01
    for compat in (-2 * np.ones(L), -2 * np.eye(L), [-2.0, -2.0, -2.0], np.float32(2), 2 * (1 - np.eye(L))):
        np.testing.assert_allclose(small(compat).inference(5), expected, atol=1e-5)
    mixed = small(2.0)
    mixed.addPairwiseGaussian(2, np.zeros((L, L)))
    np.testing.assert_allclose(mixed.inference(5), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("compats", "shape"), [((2, 3.5), (2, 1)), ((2, np.ones(L)), (2, L)), ((2, np.eye(L)), (2, L, L))]
)
def test_numbers_and_vectors_reach_the_engine_as_potts_weights(monkeypatch, compats, shape):
    """Potts with scalar or class weights is what the fused recurrence is fastest at."""
    calls = []
    engine = dcrf.marginals
    monkeypatch.setattr(dcrf, "marginals", lambda *call, **more: calls.append(call) or engine(*call, **more))
    crf = small(compats[0])
    crf.addPairwiseGaussian(3, compats[1])
    crf.inference(1)
    _, filters, weights, compatibility, iterations = calls[0]
    assert (len(filters), tuple(weights.shape), iterations) == (2, shape, 1)
    expected = torch.eye(L) if len(shape) == 3 else 1 - torch.eye(L)
    torch.testing.assert_close(compatibility, expected)


def test_2d_is_the_general_crf_with_x_before_y_and_rgb_in_order():
    flat = dcrf.DenseCRF(W * H, L)
    flat.setUnaryEnergy(ENERGY)
    y, x = np.mgrid[:H, :W]
    flat.addPairwiseEnergy(np.stack([x / 2, y / 5]).reshape(2, -1), 2)
    flat.addPairwiseEnergy(
        np.concatenate([[x / 4, y / 6], (PHOTO / [20, 60, 90]).transpose(2, 0, 1)]).reshape(5, -1), 3
    )
    image = dcrf.DenseCRF2D(W, H, L)
    image.setUnaryEnergy(ENERGY)
    image.addPairwiseGaussian((2, 5), 2)
    image.addPairwiseBilateral((4, 6), (20, 60, 90), PHOTO, 3)
    np.testing.assert_allclose(image.inference(3), flat.inference(3), atol=1e-5)
    assert (flat.npixels, flat.nlabels) == (W * H, L)


@pytest.mark.parametrize("kernel", dcrf.KernelType)
def test_kernel_types_are_the_same_without_learning(kernel):
    np.testing.assert_array_equal(small(kernel=kernel).inference(2), small().inference(2))


def test_what_pydensecrf_demands_of_memory_is_not_demanded_here():
    expected = small().inference(3)
    read_only = ENERGY.copy()
    read_only.flags.writeable = False
    for energy in (ENERGY.astype(np.float64), np.asfortranarray(ENERGY), read_only, ENERGY.tolist()):
        np.testing.assert_allclose(small(energy=energy).inference(3), expected, atol=1e-6)
    for photo in (
        np.asfortranarray(PHOTO),
        PHOTO[:, ::-1].copy()[:, ::-1],
        np.frombuffer(PHOTO.tobytes(), np.uint8).reshape(H, W, 3),
    ):
        np.testing.assert_array_equal(small(rgbim=photo).inference(3), expected)
    np.testing.assert_array_equal(small().inference(3.0), expected)  # pyright: ignore[reportArgumentType]
    np.testing.assert_array_equal(small(kernel=1, normalization=3, srgb=np.full(3, 60)).inference(3), expected)


def test_the_callers_arrays_are_copied():
    energy, photo = ENERGY.copy(), PHOTO.copy()
    crf = small(energy=energy, rgbim=photo)
    energy[:], photo[:] = 0, 0
    np.testing.assert_array_equal(crf.inference(2), small().inference(2))


def test_unary_objects():
    expected = small().inference(2)
    crf = small(energy=np.zeros_like(ENERGY))
    unary = dcrf.ConstUnary(ENERGY)
    for _ in range(2):  # pydensecrf gives a unary away the first time and crashes the second
        crf.setUnary(unary)
        np.testing.assert_array_equal(crf.inference(2), expected)
    model, features = RNG.normal(size=(L, 4)), RNG.normal(size=(4, H * W))
    crf.setUnaryEnergy(model @ features)
    by_hand = crf.inference(2)
    crf.setUnary(dcrf.LogisticUnary(model, features))
    np.testing.assert_allclose(crf.inference(2), by_hand, atol=1e-5)
    crf.setUnaryEnergy(model, features)
    np.testing.assert_allclose(crf.inference(2), by_hand, atol=1e-5)


def test_without_kernels_or_without_energy():
    crf = dcrf.DenseCRF(H * W, L)
    np.testing.assert_allclose(crf.inference(3), 1 / L, atol=1e-7)
    assert not crf.startInference()[0].any()
    crf.setUnaryEnergy(ENERGY)
    q = np.exp(-ENERGY) / np.exp(-ENERGY).sum(axis=0)
    np.testing.assert_allclose(crf.inference(3), q, atol=1e-6)
    assert crf.klDivergence(crf.inference(0)) == pytest.approx((q * (np.log(q) + ENERGY)).sum(), rel=1e-5)


def test_an_infinite_energy_excludes_a_label():
    """-log(0), from probabilities that nobody clipped."""
    energy = ENERGY.copy()
    energy[0, ::2] = np.inf
    energy[1, ::3] = np.inf
    crf = small(energy=energy)
    q = crf.inference(4)
    assert np.isfinite(q).all()
    np.testing.assert_allclose(q[np.isinf(energy)], 0, atol=1e-30)
    stepped, *tmp = crf.startInference()
    for _ in range(4):
        crf.stepInference(stepped, *tmp)
    np.testing.assert_allclose(stepped, q, atol=1e-6)
    assert np.isfinite(crf.klDivergence(stepped))


def test_tiny_bandwidths_leave_every_pixel_to_itself():
    """pydensecrf's 16-bit lattice keys overflow here and it writes outside its memory (its issue 98)."""
    q = small(sxy=1e-3, srgb=1e-3, normalization=dcrf.NORMALIZE_AFTER).inference(1)
    start = np.exp(-ENERGY) / np.exp(-ENERGY).sum(axis=0)
    logits = -ENERGY + 3 * start
    expected = np.exp(logits) / np.exp(logits).sum(axis=0)
    np.testing.assert_allclose(q, expected, atol=1e-5)


def test_one_pixel_one_label_one_row():
    for w, h, labels in ((1, 1, 1), (1, 1, 2), (17, 1, 2), (1, 17, 1)):
        crf = dcrf.DenseCRF2D(w, h, labels)
        crf.setUnaryEnergy(np.ones((labels, w * h), np.float32))
        crf.addPairwiseGaussian(3, 3)
        crf.addPairwiseBilateral(80, 13, np.zeros((h, w, 3), np.uint8), 10)
        np.testing.assert_allclose(crf.inference(5), 1 / labels, atol=1e-6)


def test_copies_and_pickles():
    crf = small()
    for other in (copy.deepcopy(crf), pickle.loads(pickle.dumps(crf))):
        np.testing.assert_array_equal(other.inference(2), crf.inference(2))


NAN = np.full((L, H * W), np.nan, np.float32)
FEATURES = np.ones((2, H * W), np.float32)
WRONG = {
    "fractional size": (lambda: dcrf.DenseCRF(20.5, 3), "nvar: "),  # pyright: ignore[reportArgumentType]
    "no points": (lambda: dcrf.DenseCRF(0, 3), "nvar: "),
    "negative height": (lambda: dcrf.DenseCRF2D(3, -2, 3), "h: "),
    "no labels": (lambda: dcrf.DenseCRF2D(3, 2, 0), "nlabels: "),
    "labels last": (lambda: small(energy=ENERGY.T), "u: .*labels come first"),
    "energy not flat": (lambda: small(energy=ENERGY.reshape(L, H, W)), "u: .*reshape"),
    "energy of another image": (lambda: small(energy=ENERGY[:, 1:]), "u: expected shape"),
    "energy NaN": (lambda: small(energy=NAN), "u: NaN"),
    "energy -infinity": (lambda: small(energy=-np.inf * ENERGY), "u: .*infinity"),
    "energy all infinite": (lambda: small(energy=np.inf * ENERGY), "u: .*infinite"),
    "energy all as good as infinite": (lambda: small(energy=np.full_like(ENERGY, 1e30)), "u: .*infinite"),
    "masked energy": (lambda: small(energy=np.ma.masked_less(ENERGY, 1)), "u: a masked array.*filled"),
    "energy of words": (lambda: small(energy=ENERGY.astype(str)), "u: .*real"),
    "setUnary of an array": (lambda: small().setUnary(ENERGY), "u: .*setUnaryEnergy"),  # pyright: ignore
    "setUnary of another size": (lambda: small().setUnary(dcrf.ConstUnary(ENERGY[:2])), "u: expected shape"),
    "logistic sizes": (lambda: small().setUnaryEnergy(np.ones((L, 4)), np.ones((5, H * W))), "f: expected 4 rows"),
    "width and height swapped": (lambda: small(rgbim=PHOTO.transpose(1, 0, 2)), "rgbim: .*width"),
    "grey photo": (lambda: small(rgbim=PHOTO[..., 0]), "rgbim: .*create_pairwise_bilateral"),
    "four channels": (lambda: small(rgbim=np.zeros((H, W, 4), np.uint8)), "rgbim: "),
    "float photo": (lambda: small(rgbim=PHOTO / 255), "rgbim: expected uint8"),
    "sxy zero": (lambda: small(sxy=0), "sxy: .*positive"),
    "sxy negative": (lambda: small().addPairwiseGaussian((3, -3), 3), "sxy: .*positive"),
    "sxy NaN": (lambda: small(sxy=np.nan), "sxy: .*positive"),
    "sxy of three": (lambda: small(sxy=(3, 3, 3)), "sxy: .*2"),
    "srgb of two": (lambda: small(srgb=(13, 13)), "srgb: .*3"),
    "bandwidths beyond the lattice": (lambda: small(sxy=1e-30), "sxy, srgb: .*larger bandwidths"),
    "bandwidths beyond float32": (lambda: small(sxy=1e-44), "sxy, srgb: .*larger bandwidths"),
    "compat too short": (lambda: small(np.ones(L - 1)), "compat: "),
    "compat not square": (lambda: small(np.ones((L, L + 1))), "compat: "),
    "compat of three axes": (lambda: small(np.ones((L, L, L))), "compat: "),
    "compat NaN": (lambda: small(np.nan), "compat: NaN"),
    "compat beyond any use": (lambda: small(1e30), "compat: up to 1e[+]30"),
    "compat complex": (lambda: small(1j), "compat: .*real"),
    "kernel": (lambda: small(kernel=7), "kernel: .*FULL_KERNEL"),
    "normalization": (lambda: small(normalization="after"), "normalization: .*NORMALIZE_AFTER"),
    "features last": (lambda: small().addPairwiseEnergy(FEATURES.T, 3), "features: expected shape"),
    "no features": (lambda: small().addPairwiseEnergy(FEATURES[:0], 3), "features: expected shape"),
    "flat features": (lambda: small().addPairwiseEnergy(FEATURES[0], 3), "features: expected 2 dim"),
    "features NaN": (lambda: small().addPairwiseEnergy(FEATURES * np.nan, 3), "features: .*NaN"),
    "features spread": (
        lambda: small().addPairwiseEnergy(np.geomspace(1, 1e30, H * W)[None], 3),
        "features: .*larger bandwidths",
    ),
    "negative iterations": (lambda: small().inference(-1), "niter: "),
    "step of a list": (lambda: small().stepInference(ENERGY.tolist()), "Q: .*list"),  # pyright: ignore
    "step of float64": (lambda: small().stepInference(ENERGY.astype(float)), "Q: .*float64"),  # pyright: ignore
    "step of NaN": (lambda: small().stepInference(np.full_like(ENERGY, np.nan)), "Q: NaN"),
    "step of another size": (lambda: small().stepInference(ENERGY[:, 1:]), "Q: expected"),
    "step of read-only": (lambda: small().stepInference(np.broadcast_to(ENERGY[:1], ENERGY.shape)), "Q: read-only"),
    "divergence of another size": (lambda: small().klDivergence(ENERGY.T), "Q: expected"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named_in_one_line(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match="^" + message) as caught:
        call()
    assert "\n" not in str(caught.value)
