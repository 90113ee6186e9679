"""The lattice: its geometry, rung 3 against exact (per cent), rung 4 against its reference (rounding)."""

import warnings

import numpy as np
import pytest
import torch

from crfrnn import Bilateral
from crfrnn.filtering import methods
from crfrnn.filtering.gaussian_filter import prepare
from crfrnn.filtering.permutohedral import lattice_cpu, reference, vertices_cpu
from crfrnn.filtering.permutohedral.keys import scattered_strides
from crfrnn.filtering.permutohedral.stencil import axis_scale
from tests.support.compare import assert_approximates, assert_equal
from tests.support.each import each
from tests.support.problems import (
    NORMALIZATIONS,
    PHOTOS,
    device_for,
    exact_after,
    fast_rows,
    photo,
    predictions,
    random_features,
    random_values,
    voc2012_image,
)

BARS = [pytest.param(160, 3, 7.0, id="160-3"), pytest.param(80, 13, 4.0, id="80-13")]
LABELS = (2, 4, 6)
small = pytest.mark.unjitted
pytestmark = pytest.mark.slow


# Rung 3: how far a lattice is from the Gaussian depends on what is filtered. Relative L2 with normalisation "after" at
# 96 x 72, measured: a network's outputs on 29 images of VOC 2012, (80, 13), mean 2.0 %, one above 4 %; the predictions
# below, regions of like colour, 1.0 to 3.8 %; scattered clusters of colour (k-means, 4 to 21 of them) 3 to 7 %; maps
# that have nothing to do with the photo 5 to 11 %.


@pytest.mark.parametrize(("theta_alpha", "theta_beta", "per_cent"), BARS)
@pytest.mark.parametrize("name", PHOTOS)
def test_approximates_exact_on_photos(name, theta_alpha, theta_beta, per_cent):
    maps = [predictions(name, labels).softmax(dim=1) for labels in LABELS]
    kernel = Bilateral(theta_alpha, theta_beta)
    expected = exact_after(kernel.features(photo(name)), torch.cat(maps, dim=1)).split(LABELS, dim=1)
    for labels, q, exact in zip(LABELS, maps, expected, strict=True):
        assert_approximates(f"lattice, {labels} labels", kernel.prepare(photo(name))(q), exact, per_cent)


VOC = ("2007_001761", "2007_007203", "2007_009251")


@pytest.mark.parametrize(("theta_alpha", "theta_beta", "per_cent"), BARS)
@pytest.mark.parametrize("name", VOC)
def test_approximates_exact_on_network_outputs(name, theta_alpha, theta_beta, per_cent):
    image, logits = voc2012_image(name)
    kernel, q = Bilateral(theta_alpha, theta_beta), logits.softmax(dim=1)
    expected = exact_after(kernel.features(image), q)
    assert_approximates(f"lattice, {name}", kernel.prepare(image)(q), expected, per_cent)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="4.4 %: the one of 29 images above 4 %")
def test_approximates_exact_on_the_worst_network_output():
    test_approximates_exact_on_network_outputs("2007_000491", 80, 13, 4.0)


@pytest.mark.parametrize("dimensions", range(1, 6))
def test_mass_without_normalization(dimensions):
    """`gain` makes "none" right: with hundreds of neighbours in reach the sums agree to a few per cent."""
    points = 3000 if dimensions < 4 else 6000
    features = random_features(1, dimensions, (points,), spread=4.0)
    ones = torch.ones(1, 1, points)
    got = prepare(features, normalization="none")(ones)
    expected = prepare(features, method="exact", normalization="none")(ones)
    assert got.sum().item() == pytest.approx(expected.sum().item(), rel=0.05)


class TestGeometry:
    """The embedding by its properties, not by another copy of its formulas."""

    @pytest.mark.parametrize("dimensions", range(1, 9))
    def test_barycentric(self, dimensions):
        """Weights are barycentric, and the corners' weighted mean is the elevated point itself."""
        features = random_features(1, dimensions, (200,), spread=9.0, dtype=torch.float64)[0] - 4.5
        keys, weights = reference.embed(features)
        assert weights.min() >= -1e-12
        assert_equal("sum of the weights", weights.sum(dim=1), torch.ones(200).double(), 1e-12)
        last = -keys.sum(dim=2, keepdim=True)
        coordinates = torch.cat([keys, last], dim=2).double()
        assert_equal("the point", (weights.unsqueeze(2) * coordinates).sum(dim=1), self.elevate(features), 1e-12)

    @pytest.mark.parametrize("dimensions", range(1, 9))
    def test_corners_are_lattice_points(self, dimensions):
        """Corner r of a simplex has remainder r in every coordinate (Adams et al., section 3)."""
        keys, _ = reference.embed(random_features(1, dimensions, (200,), spread=9.0)[0] - 4.5)
        coordinates = torch.cat([keys, -keys.sum(dim=2, keepdim=True)], dim=2)
        remainders = torch.arange(dimensions + 1).view(1, -1, 1).expand_as(coordinates)
        assert torch.equal(coordinates % (dimensions + 1), remainders)

    @staticmethod
    def elevate(features: torch.Tensor) -> torch.Tensor:
        """(d, N) -> (N, d + 1): column k of the basis is (1, .., 1, -k, 0, .., 0), scaled to unit blur."""
        dimensions = features.shape[0]
        basis = torch.zeros(dimensions + 1, dimensions, dtype=torch.float64)
        for k in range(1, dimensions + 1):
            basis[:k, k - 1], basis[k, k - 1] = 1, -k
        return ((basis * axis_scale(dimensions)) @ features).t()

    @pytest.mark.parametrize("dimensions", range(1, 9))
    def test_scale_keeps_distances(self, dimensions):
        """Equal distances in feature space are equal distances on the hyperplane."""
        features = random_features(1, dimensions, (40,), dtype=torch.float64)[0]
        elevated = self.elevate(features)
        ratio = torch.pdist(elevated) / torch.pdist(features.t().contiguous())
        assert_equal("ratio of the distances", ratio, torch.full_like(ratio, ratio[0].item()), 1e-12)

    def test_number(self):
        keys = torch.tensor([[3, 1], [0, 1], [3, 1], [3, 2], [0, 1]])
        ids = reference.number(keys)
        assert ids.unique().numel() == 3
        assert torch.equal(ids.unsqueeze(0) == ids.unsqueeze(1), (keys.unsqueeze(0) == keys.unsqueeze(1)).all(dim=2))


class TestKeys:
    @each("accuracy", [1, 2])
    @each("dimensions", [2, 5, 7])
    def test_scattered_ones_make_the_same_lattice(self, dimensions, accuracy, monkeypatch):
        """Vertices are numbered in the order of their first use, so that the sums are equal to the last bit."""
        features, values = random_features(2, dimensions, (9, 11), spread=6.0), random_values(2, 3, 9, 11)
        expected = prepare(features, accuracy=accuracy)(values)
        with monkeypatch.context() as patch:
            patch.setattr(lattice_cpu, "KEY_BITS", 3)
            numbering = lattice_cpu.key_numbering(np.zeros(dimensions), np.full(dimensions, 6.0))
            assert np.array_equal(numbering.strides[:, :-1], scattered_strides(dimensions))
            assert_equal("filtered values", prepare(features, accuracy=accuracy)(values), expected, 0)

    @each("accuracy", [1, 2, 3])
    @each("dimensions", [1, 2, 3, 4])
    def test_a_table_of_all_keys_makes_the_same_lattice(self, dimensions, accuracy, monkeypatch):
        features, values = random_features(2, dimensions, (9, 11), spread=2.0), random_values(2, 3, 9, 11)
        made, original = [], lattice_cpu._table

        def noted(box, size):
            made.append(original(box, size))
            return made[-1]

        monkeypatch.setattr(lattice_cpu, "_table", noted)
        monkeypatch.setattr(lattice_cpu, "MOST_KEYS", 10_000)
        boxed = prepare(features, accuracy=accuracy)(values)
        assert made
        assert all(table.itemsize == vertices_cpu.BOXED for table in made)
        made.clear()
        monkeypatch.setattr(lattice_cpu, "MOST_KEYS", 0)
        assert_equal("filtered values", boxed, prepare(features, accuracy=accuracy)(values), 0)
        assert made
        assert not any(table.itemsize == vertices_cpu.BOXED for table in made)

    @each("rings", [0, 2])
    @each("dimensions", [1, 2, 3, 4, 5])
    def test_numbers(self, dimensions, rings):
        """Every vertex that a point may have, and all within some steps of it, has a key of its own and below `size`,
        wherever the features lie."""
        features = random_features(1, dimensions, (400,), spread=3.0, dtype=torch.float64)[0] + 1000 * dimensions
        low, high = features.numpy().min(axis=1), features.numpy().max(axis=1)
        numbers = lattice_cpu.key_numbering(low, high, rings)
        scale = axis_scale(dimensions, 1)[:, None]
        keys = reference.embed(features / scale, 1).keys.reshape(-1, dimensions).numpy()
        steps = np.ones((dimensions + 1, dimensions), np.int64)
        np.fill_diagonal(steps, -dimensions)
        for _ in range(rings + 1):
            keys = np.unique(np.concatenate([keys, *(keys + s * step for step in steps for s in (1, -1))]), axis=0)
        coordinates = np.concatenate([keys, -keys.sum(axis=1, keepdims=True)], axis=1)
        words = coordinates @ numbers.strides.T - numbers.lowest
        assert len(np.unique(words, axis=0)) == len(keys)
        assert len(numbers.lowest) == 1
        assert words.min() >= 0
        assert words.max() < numbers.size

    @each("dimensions", [12, 14, 16, 20])
    def test_reach(self, dimensions):
        """Over more cells than the 16 bits an axis of pydensecrf hold, keys are as good as the coordinates themselves,
        by which the reference tells vertices apart."""
        near = random_features(1, dimensions, (40,), dtype=torch.float64)
        groups = [near + 40_000 * (-1.0) ** (torch.arange(dimensions).view(1, -1, 1) // 2**k) for k in range(3)]
        features, values = torch.cat(groups, dim=2), random_values(1, 2, 120, dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many features
            fast, slow = prepare(features), prepare(features, implementation="reference")
        assert_equal("filtered values", fast(values), slow(values), 1e-12)

    def test_scattered_ones_differ(self):
        """No two of a million points of a lattice in 16 dimensions, chosen at random, share both words."""
        points = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, (1_000_000, 16))
        points[500_000:] = points[:500_000] + 17 * np.eye(16, dtype=int)[np.arange(500_000) % 16]  # and neighbours
        words = points @ scattered_strides(16).T
        assert len(np.unique(words.view("i8,i8"))) == len(np.unique(points, axis=0)) == len(points)


@pytest.mark.usefixtures("strips")
@pytest.mark.parametrize("row", fast_rows("permutohedral"))
class TestEqualsTheReference:
    """Rung 4."""

    def check(
        self,
        row: methods.Implementation,
        features: torch.Tensor,
        *,
        channels: int = 3,
        normalization: str = "after",
        tolerance: float = 1e-5,
    ) -> None:
        values = random_values(features.shape[0], channels, *features.shape[2:], dtype=features.dtype)
        device = device_for(row, features.dtype)
        fast, slow = (
            prepare(features.to(device), normalization=normalization, implementation=name)
            for name in (row.name, "reference")
        )
        assert_equal("filtered values", fast(values.to(device)), slow(values.to(device)), tolerance)
        got, expected = fast.transpose(values.to(device)), slow.transpose(values.to(device))
        assert_equal("transposed filter", got, expected, tolerance)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
    @each("channels", [1, 2, 3, 21, 33, 150])
    def test_channels(self, row, channels, dtype):
        features = random_features(1, 5, (13, 22), dtype=dtype)
        self.check(row, features, channels=channels, tolerance=1e-5 if dtype == torch.float32 else 1e-12)

    @small
    @each("channels", [1, 10])
    def test_few_points(self, row, channels):
        self.check(row, random_features(2, 3, (4, 5)), channels=channels)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
    @each("dimensions", range(1, 9))
    def test_dimensions(self, row, dimensions, dtype):
        features = random_features(1, dimensions, (19, 17), spread=4.0, dtype=dtype)
        self.check(row, features, tolerance=1e-5 if dtype == torch.float32 else 1e-12)

    @small
    @each("dimensions", [1, 2, 5, 8])
    def test_dimensions_of_few_points(self, row, dimensions):
        self.check(row, random_features(1, dimensions, (3, 4), spread=4.0))

    @small
    @each("shape", [(1,), (1, 1), (1, 9), (2, 3, 2)])
    def test_shapes_of_few_points(self, row, shape):
        self.check(row, random_features(1, 3, shape))

    @each("shape", [(1, 300), (300, 1), (64,), (65,), (63, 40), (5, 6, 7), (4096,), (5001,)])
    def test_shapes(self, row, shape):
        self.check(row, random_features(1, 3, shape))

    @each("batch", [0, 1, 2, 3])
    def test_batch(self, row, batch):
        self.check(row, random_features(batch, 5, (9, 11)))

    @each("normalization", NORMALIZATIONS)
    def test_normalizations(self, row, normalization):
        self.check(row, random_features(2, 5, (9, 11)), normalization=normalization)

    @pytest.mark.parametrize(("theta_alpha", "theta_beta", "per_cent"), BARS)
    @pytest.mark.parametrize("name", PHOTOS[:2])
    def test_photos(self, row, name, theta_alpha, theta_beta, per_cent):
        del per_cent
        self.check(row, Bilateral(theta_alpha, theta_beta).features(photo(name)), channels=5)

    def test_points_on_the_faces_of_simplices(self, row):
        """Whole numbers and ties: rounding must put a point into the same simplex in both."""
        grid = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")).unsqueeze(0)
        for features in (grid, grid / 2, torch.zeros(1, 5, 12, 15), torch.cat([grid, grid.flip(2), -grid], dim=1)):
            self.check(row, features)

    def test_negative_and_far_away(self, row):
        self.check(row, random_features(1, 3, (50,)) - 1000)
        self.check(row, random_features(1, 3, (50,), dtype=torch.float64) + 1e6, tolerance=1e-9)

    @pytest.mark.parametrize("size", [pytest.param(4, marks=small), 24])
    def test_two_words_of_key(self, row, size):
        """Bandwidth 1e-3 spreads colours over so many cells that a vertex' key takes two 64-bit words."""
        features = Bilateral(2.0, 1e-3).features(photo("coffee", size, size + 3))
        features[:, 2:, :, 1::2] = features[:, 2:, :, : size + 3 - 1 : 2][..., : (size + 3) // 2] + 0.4  # neighbours
        self.check(row, features)

    @pytest.mark.parametrize("points", [pytest.param(3, marks=small), 40])
    @each("dimensions", [9, 12, 16, 20])
    def test_many_features(self, row, dimensions, points):
        """More bits than two words hold, at least the 16 of pydensecrf for each axis; every second is a neighbour."""
        features = random_features(1, dimensions, (points,), spread=3e4, dtype=torch.float64)
        features = (features - 1.5e4).repeat_interleave(2, dim=2)
        features[..., 1::2] += 0.3 * random_features(1, dimensions, (points,), dtype=torch.float64, seed=5)
        self.check(row, features, tolerance=1e-12)

    def test_many_vertices(self, row):
        """More vertices than points: the hash table grows, and vertices are divided between threads."""
        self.check(row, random_features(1, 5, (40, 45), spread=60.0), channels=21)

    @small
    def test_table_grows(self, row):
        """Beyond 8,192 vertices the table of their keys is made anew."""
        self.check(row, random_features(1, 8, (1000,), spread=200.0), channels=1)
