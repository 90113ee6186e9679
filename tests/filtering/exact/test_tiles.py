"""Tiles of points in Morton order, the lists of near tiles, and the exact sum over them."""

import math
import sys
from types import ModuleType

import pytest
import torch

from crfrnn.filtering import methods
from crfrnn.filtering.exact import reference
from crfrnn.filtering.exact.tiles import morton_keys, reach, tile
from crfrnn.filtering.gaussian_filter import gaussian_filter, prepare
from crfrnn.runtime import gpu, layout_gpu
from tests.support.compare import assert_equal
from tests.support.problems import NORMALIZATIONS, device_for, photo, random_features, random_values

pytest.importorskip("triton", reason="Triton is not installed")
ROW = methods.choose("exact", torch.device("cuda"), torch.float32, "triton")
HALVES = [torch.float16] if gpu.interpreted() else [torch.float16, torch.bfloat16]  # NumPy has no bfloat16
EQUAL = {torch.float32: 2e-6, torch.float64: 1e-12}


def operator(features: torch.Tensor, tolerance: float | None = None):
    return ROW.load()(features.to(device_for(ROW)), tolerance)


def module() -> ModuleType:
    """Where the operator lives; loaded late, as Triton may be absent."""
    return sys.modules[ROW.load().__module__]


def bilateral(height: int, width: int, theta_alpha: float, theta_beta: float) -> torch.Tensor:
    """(1, 5, N), features of a real photo."""
    picture = photo("coffee", height, width)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.cat([torch.stack([x, y])[None] / theta_alpha, picture / theta_beta], dim=1).flatten(2)


class TestTiles:
    @pytest.mark.parametrize(("points", "dimensions"), [(1, 1), (7, 2), (64, 5), (65, 3), (200, 70)])
    def test_sorting_loses_nothing(self, points, dimensions):
        features = random_features(2, dimensions, (points,))
        tiles = tile(features, 32)
        assert tiles.count == -(-points // 32)
        values = random_values(2, 3, points)
        assert torch.equal(tiles.unsort(tiles.sort(values)), values)
        assert torch.equal(tiles.unsort(tiles.features), features)
        assert not tiles.sort(values)[:, :, points:].any()

    def test_boxes_hold_their_points(self):
        tiles = tile(random_features(2, 3, (100,), spread=20), 16)
        points = tiles.features.unflatten(2, (-1, 16))
        assert bool((points >= tiles.low.unsqueeze(3)).all())
        assert bool((points <= tiles.high.unsqueeze(3)).all())

    def test_morton_order_by_hand(self):
        """The cells of a 4 x 4 grid in the order of the letter N, at two scales."""
        x, y = (axis.flatten() for axis in torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="xy"))
        order = morton_keys(torch.stack([x, y])[None])[0].argsort()
        assert y[order].int().tolist() == [0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1, 2, 3, 2, 3]
        assert x[order].int().tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]

    def test_points_that_are_all_the_same(self):
        tiles = tile(torch.full((1, 3, 40), 7.0), 16)
        assert torch.equal(tiles.order[0], torch.arange(40))

    def test_tiles_of_a_photo_are_compact(self):
        """Boxes in Morton order are much smaller than boxes around pixels that follow each other in the image."""
        features = bilateral(72, 96, 80, 3)
        sorted_boxes = tile(features, 64)
        in_image = features.unflatten(2, (-1, 64))
        size = (sorted_boxes.high - sorted_boxes.low).square().sum(dim=1).mean()
        assert size < 0.25 * (in_image.amax(dim=3) - in_image.amin(dim=3)).square().sum(dim=1).mean()

    @pytest.mark.parametrize("tolerance", [0.0, -1.0, 1.0, float("nan")])
    def test_a_tolerance_that_is_none(self, tolerance):
        with pytest.raises(ValueError, match=r"^tolerance: must lie between 0 and 1"):
            reach(10, tolerance)


def test_cuda_gets_triton(monkeypatch):
    monkeypatch.setattr(gpu, "triton_installed", lambda: True)
    assert methods.choose("exact", torch.device("cuda"), torch.float32).name == "triton"


@pytest.mark.triton
class TestSum:
    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    @pytest.mark.parametrize("dtype", EQUAL, ids=str)
    def test_equals_the_reference_with_gradients(self, dtype, normalization):
        device = device_for(ROW, dtype)
        got, expected = [], []
        for name, into in (("triton", got), ("reference", expected)):
            features = random_features(2, 5, (5, 8), spread=3, dtype=dtype).to(device).requires_grad_()
            values = random_values(2, 3, 5, 8, dtype=dtype).to(device).requires_grad_()
            out = gaussian_filter(values, features, method="exact", normalization=normalization, implementation=name)
            into += [out, *torch.autograd.grad(out.square().sum(), (values, features))]
        for quantity, a, e in zip(("sums", "by the values", "by the features"), got, expected, strict=True):
            assert_equal(quantity, a, e, EQUAL[dtype] * (1 if quantity == "sums" else 5))

    @pytest.mark.parametrize(
        ("batch", "channels", "shape", "dimensions"),
        [
            (1, 2, (1,), 1),
            (8, 1, (13,), 2),
            (1, 21, (65, 2), 5),
            (1, 150, (67,), 6),
            (2, 16, (3, 5, 7), 4),
            (1, 3, (130,), 8),
        ],
    )
    def test_shapes(self, batch, channels, shape, dimensions):
        device = device_for(ROW)
        features = random_features(batch, dimensions, shape, spread=3).to(device)
        values = random_values(batch, channels, *shape).to(device)
        got, expected = (prepare(features, method="exact", implementation=n)(values) for n in ("triton", "reference"))
        assert_equal("filtered values", got, expected, EQUAL[torch.float32])

    def test_no_points_and_no_channels(self):
        device = device_for(ROW)
        for batch, channels, points in ((1, 2, 0), (1, 0, 5), (0, 2, 5)):
            out = operator(torch.zeros(batch, 3, points)).apply(torch.zeros(batch, channels, points, device=device))
            assert out.shape == (batch, channels, points)

    def test_far_tiles_are_left_out(self):
        features, values = bilateral(24, 32, 40, 3), random_values(1, 4, 768)
        sums = operator(features)
        (near,) = module().near_tiles(sums.tiles, sums.tolerance)
        assert int(near.counts.sum()) < 0.7 * sums.tiles.count**2
        expected = reference.ExactOperator(features).apply(values)
        assert_equal("sums", sums.apply(values.to(sums.features.device)).cpu(), expected, EQUAL[torch.float32])

    @pytest.mark.parametrize(("distance", "kept"), [(3.1, True), (3.2, False)])
    def test_the_tolerance_by_hand(self, distance, kept):
        """Two tiles of like points, reach(128, 0.9) = 3.149^2: what is lost is below 0.9 of the largest value."""
        features = torch.cat([torch.zeros(1, 2, 64), torch.full((1, 2, 64), distance / 2**0.5)], dim=2)
        sums = operator(features, tolerance=0.9)
        got = sums.apply(torch.ones(1, 1, 128, device=sums.features.device)).cpu()
        others = 64 * math.exp(-(distance**2) / 2)
        assert others < 0.9
        assert_equal("sums", got, torch.full((1, 1, 128), 64 + kept * others), EQUAL[torch.float32])

    def test_lists_hold_every_near_pair(self):
        """A pair of points whose kernel is not negligible lies in listed tiles; lists ascend, without doubles."""
        features = bilateral(20, 30, 40, 6)
        tiles = operator(features).tiles
        (near,) = module().near_tiles(tiles, 1e-6)
        listed = torch.zeros(tiles.count, tiles.count, dtype=torch.bool)
        for row, length in enumerate(near.counts[0].tolist()):
            columns = near.lists[0, row, :length].long().cpu()
            assert bool((columns.diff() > 0).all())
            listed[row, columns] = True
        points = tiles.features[0].cpu()
        squared = (points[:, :, None] - points[:, None]).square().sum(dim=0)
        i, j = (squared < 0.999 * reach(600, 1e-6)).nonzero().unbind(1)
        assert bool(listed[i // tiles.size, j // tiles.size].all())
        assert torch.equal(listed, listed.T)
        assert not bool(listed.all())

    def test_schedule_begins_with_the_longest(self):
        (near,) = module().near_tiles(operator(bilateral(20, 30, 40, 3)).tiles, 1e-6)
        lengths = near.counts[0][near.schedule[0].long()]
        assert bool((lengths.diff() <= 0).all())
        assert near.schedule[0].sort().values.tolist() == list(range(near.rows))

    def test_lists_in_parts_give_the_same_bits(self, monkeypatch):
        features, values = bilateral(13, 20, 40, 3), random_values(1, 2, 260)
        sums = operator(features.expand(2, -1, -1))
        values = values.expand(2, -1, -1).to(sums.features.device)
        whole = sums.apply(values)
        original = module().near_tiles
        parts = list(original(sums.tiles, 1e-6, entries=3 * 2 * sums.tiles.count))
        assert [part.rows for part in parts] == [3, 2]
        monkeypatch.setattr(module(), "near_tiles", lambda *a: original(*a, entries=3 * 2 * sums.tiles.count))
        assert torch.equal(sums.apply(values), whole)

    @pytest.mark.parametrize("dtype", HALVES, ids=str)
    def test_half_precision_is_summed_in_float32(self, dtype):
        features, values = random_features(1, 3, (70,)), random_values(1, 5, 70).to(dtype)
        sums = operator(features)
        got = sums.apply(values.to(sums.features.device))
        assert got.dtype == dtype
        expected = reference.ExactOperator(features).apply(values.float())
        assert_equal("sums", got.float().cpu(), expected, 8 * torch.finfo(dtype).eps)

    def test_every_entry_is_written(self, poison):
        device = device_for(ROW)
        features = random_features(2, 3, (5, 14)).to(device).requires_grad_()
        values = random_values(2, 4, 5, 14).to(device).requires_grad_()
        poison()
        out = prepare(features, method="exact", implementation="triton")(values)
        grads = torch.autograd.grad(out.square().sum(), (values, features))
        assert all(bool(torch.isfinite(tensor).all()) for tensor in (out, *grads))

    def test_large_offsets_do_not_cancel(self):
        """Features a thousand bandwidths from the origin: distances come from differences."""
        features = (random_features(1, 2, (70,)) * 64).round() / 64 + 4096
        values = random_values(1, 2, 70)
        sums = operator(features)
        expected = reference.ExactOperator(features.double()).apply(values.double())
        assert_equal("sums", sums.apply(values.to(sums.features.device)).cpu().double(), expected, 2e-6)

    def test_values_that_do_not_fit(self, monkeypatch):
        exact = operator(random_features(2, 3, (9,)))
        monkeypatch.setattr(layout_gpu, "spare", lambda needed, device: 5000)
        with pytest.raises(ValueError, match=r"^values: .* GB .* split the batch into \d+ or more parts"):
            exact.apply(random_values(2, 4, 9).to(device_for(ROW)))

    def test_under_torchs_compiler(self):
        """One graph, with gradients."""
        features, values = random_features(1, 2, (7,)).to(device_for(ROW)), random_values(1, 2, 7).to(device_for(ROW))
        ROW.load()

        def run(v, f):
            return gaussian_filter(v, f, method="exact", implementation="triton")

        results = []
        for call in (run, torch.compile(run, fullgraph=True, backend="aot_eager")):
            v, f = values.clone().requires_grad_(), features.clone().requires_grad_()
            out = call(v, f)
            results.append([out, *torch.autograd.grad(out.square().sum(), (v, f))])
        for got, expected in zip(*results, strict=True):
            assert_equal("compiled", expected, got, 1e-6)
