"""The helpers: energies against the formula written out, features against loops over the grid."""

import numpy as np
import pytest

from crfrnn.pydensecrf import utils

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_with_unknown(dtype):
    labels = np.array([[0, 1, 2], [3, 3, 0]], dtype)
    energy = utils.unary_from_labels(labels, 3, 0.7)
    third, rest = 1 / 3, 0.15
    expected = [
        [third, 0.7, rest, rest, rest, third],
        [third, rest, 0.7, rest, rest, third],
        [third, rest, rest, 0.7, 0.7, third],
    ]
    assert energy.dtype == np.float32
    assert energy.flags.c_contiguous
    np.testing.assert_allclose(np.exp(-energy), expected, rtol=1e-6)


def test_labels_that_are_all_known():
    energy = utils.unary_from_labels(np.array([0, 2, 1]), 3, gt_prob=0.8, zero_unsure=False)
    np.testing.assert_allclose(np.exp(-energy), [[0.8, 0.1, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]], rtol=1e-6)
    mask = utils.unary_from_labels([True, False], 2, 0.9, False)
    np.testing.assert_allclose(np.exp(-mask), [[0.1, 0.9], [0.9, 0.1]], rtol=1e-6)


def test_softmax():
    p = RNG.dirichlet(np.ones(4), (5, 6)).transpose(2, 0, 1)
    energy = utils.unary_from_softmax(p)
    assert (energy.dtype, energy.shape, energy.flags.c_contiguous) == (np.float32, (4, 30), True)
    np.testing.assert_allclose(energy, -np.log(p).reshape(4, 30), rtol=1e-5)
    scaled = utils.unary_from_softmax(p, scale=0.6, clip=None)
    np.testing.assert_allclose(np.exp(-scaled), (0.6 * p + 0.4 / 4).reshape(4, 30), rtol=1e-5)


def test_softmax_is_clipped():
    hard = np.array([[0.0, 1.0, 1e-9], [1.0, 0.0, 1.0000001]])
    np.testing.assert_allclose(np.exp(-utils.unary_from_softmax(hard)), [[1e-5, 1, 1e-5], [1, 1e-5, 1]], rtol=1e-5)
    np.testing.assert_allclose(utils.unary_from_softmax(hard, clip=0.5), -np.log([[0.5, 1, 0.5], [1, 0.5, 1]]))
    assert np.isinf(utils.unary_from_softmax(hard, clip=None)[0, 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
def test_softmax_of_other_types(dtype):
    one_hot = np.array([[0, 1], [1, 0]], dtype)
    for p in (one_hot, np.asfortranarray(one_hot), one_hot[::-1][::-1]):
        expected = -np.log([[1e-5, 1], [1, 1e-5]])
        np.testing.assert_allclose(utils.unary_from_softmax(p), expected, rtol=1e-5, atol=1e-7)


def test_gaussian_features_follow_the_axes():
    shape, sdims = (3, 4, 2), (2.0, 3.0, 0.5)
    features = utils.create_pairwise_gaussian(sdims, shape)
    assert features.dtype == np.float32
    points = [[i / s for i, s in zip(index, sdims, strict=True)] for index in np.ndindex(*shape)]
    np.testing.assert_allclose(features, np.array(points).T, rtol=1e-6)
    np.testing.assert_array_equal(
        utils.create_pairwise_gaussian(2, (3, 4)), utils.create_pairwise_gaussian([2, 2], [3, 4])
    )


@pytest.mark.parametrize("chdim", [0, 1, 2, -3])
def test_bilateral_features(chdim):
    image = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    moved = np.moveaxis(image, 2, chdim)
    before = moved.copy()
    features = utils.create_pairwise_bilateral((2, 3), (5, 6, 7), moved, chdim=chdim)
    points = [[y / 2, x / 3, *(image[y, x] / [5, 6, 7])] for y, x in np.ndindex(4, 5)]
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, np.array(points).T, rtol=1e-6)
    np.testing.assert_array_equal(moved, before)


def test_bilateral_features_without_a_channel_axis():
    grey = RNG.normal(size=(4, 5))
    features = utils.create_pairwise_bilateral((2, 3), 0.1, grey)
    points = [[y / 2, x / 3, grey[y, x] / 0.1] for y, x in np.ndindex(4, 5)]
    np.testing.assert_allclose(features, np.array(points).T, rtol=1e-5)
    colours = RNG.random((4, 5, 2))
    one = utils.create_pairwise_bilateral((2, 3), 5, colours, chdim=2)
    np.testing.assert_array_equal(one, utils.create_pairwise_bilateral((2, 3), [5, 5], colours, chdim=2))


def test_old_names_warn_and_work():
    with pytest.warns(DeprecationWarning, match="unary_from_labels"):
        energy = utils.compute_unary(np.array([0, 1, 2]), 2)
    np.testing.assert_array_equal(energy, utils.unary_from_labels(np.array([0, 1, 2]), 2, 0.5))
    p = np.array([[0.25, 0.5], [0.75, 0.5]])
    with pytest.warns(DeprecationWarning, match="unary_from_softmax"):
        energy = utils.softmax_to_unary(p, 0.8)
    np.testing.assert_array_equal(energy, utils.unary_from_softmax(p, 0.8, clip=None))
    with pytest.warns(DeprecationWarning, match="unary_from_softmax"):
        np.testing.assert_array_equal(utils.softmax_to_unary(p), utils.unary_from_softmax(p, clip=None))


def test_live_against_pydensecrf():
    theirs = pytest.importorskip("pydensecrf.utils", reason="pydensecrf2 is not installed (pip install pydensecrf2)")
    labels = RNG.integers(0, 5, (6, 7))
    p = RNG.dirichlet(np.ones(4), (6, 7)).transpose(2, 0, 1).astype(np.float32)
    image = RNG.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    calls = [
        ("unary_from_labels", (labels, 4, 0.7), {}),
        ("unary_from_labels", (labels, 5, 0.6), {"zero_unsure": False}),
        ("unary_from_softmax", (p,), {}),
        ("unary_from_softmax", (p, 0.7, 1e-3), {}),
        ("unary_from_softmax", (p,), {"scale": 1, "clip": None}),
        ("create_pairwise_gaussian", ((2, 3.5), (6, 7)), {}),
        ("create_pairwise_bilateral", ((80, 70), 13, image), {"chdim": 2}),
        ("create_pairwise_bilateral", ((80, 70), [13, 12, 11], image, 2), {}),
        ("create_pairwise_bilateral", ((80, 70), (0.01,), image[..., 0]), {}),
    ]
    for name, arguments, options in calls:
        expected = getattr(theirs, name)(*arguments, **options)
        result = getattr(utils, name)(*arguments, **options)
        assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(result, expected, rtol=2e-6, atol=1e-6, err_msg=name)


IMAGE = np.zeros((4, 5, 3), np.uint8)
WRONG = {
    "certain": (lambda: utils.unary_from_labels([1, 2], 2, 1.0), "gt_prob: "),
    "per cent": (lambda: utils.unary_from_labels([1, 2], 2, 70), "gt_prob: "),
    "one label": (lambda: utils.unary_from_labels([1, 1], 1, 0.7), "n_labels: "),
    "label too large": (lambda: utils.unary_from_labels([1, 3], 2, 0.7), "labels: 3 is not in 0..2"),
    "label too large, all known": (
        lambda: utils.unary_from_labels([0, 2], 2, 0.7, False),
        "labels: 2 is not in",
    ),
    "negative label": (lambda: utils.unary_from_labels([1, -1], 2, 0.7), "labels: -1"),
    "ignore label": (lambda: utils.unary_from_labels(np.array([1, 255], np.uint8), 2, 0.7), "labels: 255.*zero_unsure"),
    "labels as floats": (lambda: utils.unary_from_labels([1.0, 2.0], 2, 0.7), "labels: .*astype"),
    "scale": (lambda: utils.unary_from_softmax(np.ones((2, 3)), scale=1.5), "scale: "),
    "clip": (lambda: utils.unary_from_softmax(np.ones((2, 3)), clip=-1), "clip: "),
    "NaN": (lambda: utils.unary_from_softmax(np.full((2, 3), np.nan)), "sm: NaN"),
    "logits": (lambda: utils.unary_from_softmax(-np.ones((2, 3)), clip=None), "sm: .*softmax"),
    "words": (lambda: utils.unary_from_softmax(np.array([["a"]])), "sm: "),
    "sdims too few": (lambda: utils.create_pairwise_gaussian((3, 3), (4, 5, 6)), "sdims: .*3"),
    "sdims zero": (lambda: utils.create_pairwise_gaussian((3, 0), (4, 5)), "sdims: .*positive"),
    "empty shape": (lambda: utils.create_pairwise_gaussian((3, 3), (4, 0)), "shape: "),
    "colours without chdim": (lambda: utils.create_pairwise_bilateral((3, 3), 13, IMAGE), "sdims: .*chdim=-1"),
    "schan too few": (lambda: utils.create_pairwise_bilateral((3, 3), (13, 13), IMAGE, chdim=2), "schan: .*3 channels"),
    "chdim": (lambda: utils.create_pairwise_bilateral((3, 3), 13, IMAGE, chdim=3), "chdim: "),
    "complex image": (lambda: utils.create_pairwise_bilateral((3, 3), 13, IMAGE * 1j, chdim=2), "img: .*real"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named_in_one_line(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match="^" + message) as caught:
        call()
    assert "\n" not in str(caught.value)
