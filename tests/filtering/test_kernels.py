"""Bandwidths in, features out."""

import copy
import dataclasses
import pickle
from typing import Any, cast

import numpy as np
import pytest
import torch

from crfrnn import Bilateral, Features, Spatial
from tests.support.compare import assert_approximates, assert_equal
from tests.support.problems import photo, random_values

KERNELS = [Bilateral(5, 20), Spatial(2), Features(3.0)]


def test_bilateral_features_by_hand():
    """x, y over theta_alpha, then the channels over theta_beta; x runs along the last axis."""
    guide = torch.tensor([[[[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]]]])
    features = Bilateral(theta_alpha=2, theta_beta=10).features(guide)
    expected = torch.tensor(
        [[[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]], [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]], [[1, 2, 3], [4, 5, 6]]]
    )
    assert_equal("features", features, expected.unsqueeze(0), 1e-7)


def test_a_bandwidth_for_each_axis_and_channel():
    """Bandwidths are given in the order of the axes, (y, x); positions come last axis first, x, y."""
    features = Bilateral(theta_alpha=(2, 4), theta_beta=(1, 10)).features(torch.ones(1, 2, 3, 5))
    assert_equal("x", features[0, 0, 0], torch.arange(5) / 4, 1e-7)
    assert_equal("y", features[0, 1, :, 0], torch.arange(3) / 2, 1e-7)
    assert_equal("channels", features[0, 2:, 0, 0], torch.tensor([1, 0.1]), 1e-7)


@pytest.mark.parametrize("shape", [(7,), (4, 5), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shapes_of_features(shape, channels):
    guide = torch.zeros(2, channels, *shape)
    assert Bilateral().features(guide).shape == (2, len(shape) + channels, *shape)
    assert Spatial().features(guide).shape == (2, len(shape), *shape)
    assert Features().features(guide).shape == (2, channels, *shape)


@pytest.mark.parametrize("shape", [(60,), (20, 24), (8, 9, 10)], ids=str)
@pytest.mark.parametrize("theta", [1.5, (2.0, 1.0, 3.0)], ids=str)
def test_spatial_methods_agree(shape, theta):
    """One kernel, three ways to sum it; the lattice with its per cents."""
    thetas = theta if isinstance(theta, float) else theta[: len(shape)]
    guide, values = torch.zeros(1, 1, *shape), random_values(1, 2, *shape).abs()
    exact = Spatial(thetas, method="exact").prepare(guide)(values)
    assert_approximates("separable", Spatial(thetas).prepare(guide)(values), exact, per_cent=0.1)
    lattice = Spatial(thetas, method="permutohedral").prepare(guide)(values)
    assert_approximates("lattice", lattice, exact, per_cent=10)


def test_bilateral_is_a_kernel_on_its_features():
    guide, values = photo("coffee", 12, 15), random_values(1, 2, 12, 15)
    kernel = Bilateral(5, 20)
    got, expected = kernel.prepare(guide)(values), Features(1.0).prepare(kernel.features(guide))(values)
    assert_equal("filtered values", got, expected, 0)


def test_point_sets():
    """A guide (B, C, N) without a grid: `Features` knows no positions."""
    guide, values = random_values(2, 3, 40), random_values(2, 4, 40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for method in ("permutohedral", "exact"):
        kernel = Features(theta=0.7, method=method)
        shuffled = kernel.prepare(guide[..., order])(values[..., order])
        assert_equal("order of the points", shuffled, kernel.prepare(guide)(values)[..., order], 1e-5)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_kernels_are_values(kernel):
    assert copy.deepcopy(kernel) == kernel
    assert pickle.loads(pickle.dumps(kernel)) == kernel
    assert len({kernel, copy.copy(kernel)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        kernel.weight = 1.0
    assert dataclasses.replace(kernel, weight=7.0).weight == 7.0


def test_defaults_are_the_paper():
    assert (Bilateral().theta_alpha, Bilateral().theta_beta, Bilateral().weight) == (160, 3, 5)
    assert (Spatial().theta_gamma, Spatial().weight) == (3, 3)


@pytest.mark.parametrize("method", ["permutohedral", "exact"])
def test_kernels_choose_their_method(method):
    guide, values = photo("coffee", 6, 8), random_values(1, 2, 6, 8)
    for kernel in (Bilateral(5, 20, method=method), Spatial(2, method=method), Features(9.0, method=method)):
        reference = kernel.prepare(guide, implementation="reference")(values)
        assert_equal("filtered values", kernel.prepare(guide)(values), reference, 1e-5)


def test_numbers_and_arrays_of_numpy_are_plain_numbers():
    arrays: list[Any] = [np.array([80.0, 60.0]), np.array([80, 60]), np.array([80, 60], np.float32)]
    for theta in arrays:
        kernel = Bilateral(theta, cast(Any, np.float32(13)), cast(Any, np.array(2.5)))
        assert kernel == Bilateral((80, 60), 13, 2.5)
        assert hash(kernel) == hash(Bilateral((80, 60), 13, 2.5))
        assert "array" not in repr(kernel)
        assert Spatial(theta).scaled(2) == Spatial((160, 120))
        assert Features(theta) == Features((80, 60))
    guide = photo("coffee", 6, 8)
    assert torch.equal(Bilateral(arrays[0], 20).features(guide), Bilateral((80, 60), 20).features(guide))


class TestErrors:
    def test_bandwidths_are_checked_when_a_kernel_is_made(self):
        makers = {"theta_alpha": Bilateral, "theta_beta": Bilateral, "theta_gamma": Spatial, "theta": Features}
        wrong = [0, -1.0, float("nan"), float("inf"), (3.0, 0.0), (), "3", True, torch.tensor([3.0, 0.0])]
        wrong += [None, {}, print, np.array([3.0, 0.0]), np.array([[3.0, 3.0]]), np.array([]), np.array(["3"])]
        for name, maker in makers.items():
            for bad in wrong:
                with pytest.raises(ValueError, match=rf"^{name}: a bandwidth must be positive and finite, got "):
                    maker(**{name: bad})
        with pytest.raises(ValueError, match=r"^theta_alpha: "):
            Bilateral(0, 3)
        with pytest.raises(ValueError, match=r"^theta_alpha: .* got nan"):
            Bilateral(float("nan"), 3)

    def test_weights(self):
        for maker in (Bilateral, Spatial, Features):
            for bad in (float("nan"), float("inf"), "5", None, np.ones(2), np.array(np.nan), torch.ones(2)):
                with pytest.raises(ValueError, match=r"^weight: must be a finite number, got "):
                    maker(weight=cast(Any, bad))
            assert maker(weight=-1.0).weight == -1  # repulsive ones are allowed

    def test_accuracy(self):
        for maker in (Bilateral, Features):
            for bad in (0, 4, True, 1.5):
                with pytest.raises(ValueError, match=r"^accuracy: .* is none of 1, 2, 3"):
                    maker(accuracy=cast(Any, bad))

    def test_number_of_bandwidths(self):
        guide = torch.zeros(1, 3, 4, 5)
        with pytest.raises(ValueError, match=r"^theta_alpha: 3 bandwidths for 2 axes"):
            Bilateral(theta_alpha=(1, 2, 3)).prepare(guide)
        with pytest.raises(ValueError, match=r"^theta_beta: 2 bandwidths for 3 channels"):
            Bilateral(theta_beta=(1, 2)).prepare(guide)
        with pytest.raises(ValueError, match=r"^theta_gamma: 1 bandwidths for 2 axes"):
            Spatial(theta_gamma=(1,)).prepare(guide)

    @pytest.mark.parametrize("kernel", KERNELS, ids=str)
    @pytest.mark.parametrize("shape", [(4,), (3, 4)], ids=str)
    def test_guide_shape(self, kernel, shape):
        with pytest.raises(ValueError, match=r"^guide: expected"):
            kernel.prepare(torch.zeros(*shape))

    def test_method(self):
        for maker in (Bilateral, Spatial, Features):
            with pytest.raises(ValueError, match=r"^method: 'fft' is none of .*permutohedral, exact"):
                maker(method="fft")

    def test_bilateral_is_not_separable(self):
        with pytest.raises(ValueError, match=r"^method: 'separable'"):
            Bilateral(method="separable")


def test_scaled_kernels_keep_their_share_of_the_grid():
    bilateral = Bilateral((5, 6), 20, weight=2, method="exact")
    assert bilateral.scaled(3) == dataclasses.replace(bilateral, theta_alpha=(15, 18))
    assert Spatial(2, weight=7).scaled(0.5) == Spatial(1.0, weight=7)
    assert Features(3.0).scaled(4) == Features(3.0)
    small, large = Spatial(1.5, method="exact"), Spatial(1.5, method="exact").scaled(2)
    grid, twice = torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 12, 16)
    assert_equal("distances", large.features(twice)[..., ::2, ::2], small.features(grid), 1e-6)


class TestChannels:
    """A kernel on some of the guide's channels is that kernel on a guide of these."""

    @pytest.mark.parametrize("kernel", [Bilateral(5, (20, 30)), Features((2.0, 3.0))], ids=lambda k: type(k).__name__)
    def test_chosen_ones(self, kernel):
        guide, values = random_values(2, 4, 6, 7) * 50, random_values(2, 3, 6, 7)
        some = dataclasses.replace(kernel, channels=np.array([3, 1]))
        assert some.channels == (3, 1)
        assert_equal("filtered", some.prepare(guide)(values), kernel.prepare(guide[:, [3, 1]])(values), 0)

    @pytest.mark.parametrize("channels", [(), (0, 0), (-1,), (0.5,), 3, "01"], ids=str)
    def test_no_channels(self, channels):
        with pytest.raises(ValueError, match=r"^channels: expected different numbers from 0 on"):
            Features(channels=channels)

    def test_more_than_there_are(self):
        with pytest.raises(ValueError, match=r"^channels: 3 is none of the guide's 3 \(the first is 0\)"):
            Bilateral(channels=(0, 3)).prepare(torch.zeros(1, 3, 4, 5))
