"""Features of any scale: the right answer, or a ValueError that names the features. Never a crash, never a hang."""

import pytest
import torch

from crfrnn import Bilateral, Features, Spatial, gaussian_filter
from crfrnn.filtering.gaussian_filter import prepare
from tests.support.compare import assert_approximates, assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, ROWS, device_for, photo, prepared, random_values

LATTICES = ["numba_cpu", "reference"]
small = pytest.mark.unjitted


@pytest.mark.parametrize("implementation", LATTICES)
class TestLattice:
    @small
    def test_narrow(self, implementation):
        """Points that are many bandwidths apart are alone: the filter does nothing."""
        theta = 1e-3
        guide, values = photo("coffee", 7, 8), random_values(1, 3, 7, 8)
        guide = guide + torch.linspace(0, 1, 56).view(1, 1, 7, 8)  # no two pixels alike
        got = Bilateral(theta, theta).prepare(guide, implementation=implementation)(values)
        assert_equal("filtered values", got, values, 1e-6)

    def test_narrow_colours_in_a_wide_place(self, implementation):
        """theta_beta = 1e-3: only pixels of the same colour, to the last bit, hear each other."""
        guide, values = torch.zeros(1, 3, 6, 9), random_values(1, 2, 6, 9)
        guide[..., 5:] = 200.0
        got = Bilateral(1e6, 1e-3).prepare(guide, implementation=implementation)(values)
        left, right = values[..., :5], values[..., 5:]
        means = [part.mean(dim=(2, 3), keepdim=True).expand_as(part) for part in (left, right)]
        assert_equal("filtered values", got, torch.cat(means, dim=3), 1e-5)

    def test_wide(self, implementation):
        """Bandwidth 1e4: everything is one point, and the filter the mean."""
        guide, values = photo("coffee", 24, 30), random_values(1, 3, 24, 30).abs()
        got = Bilateral(1e4, 1e4).prepare(guide, implementation=implementation)(values)
        mean = values.mean(dim=(2, 3), keepdim=True).expand_as(values)
        assert_approximates("filtered values", got, mean, per_cent=0.1)

    def test_constant_image(self, implementation):
        """Without colours a bilateral filter is a spatial one."""
        values = random_values(1, 2, 20, 20).abs()
        got = Bilateral(3, 10).prepare(torch.full((1, 3, 20, 20), 77.0), implementation=implementation)(values)
        expected = Spatial(3, method="exact").prepare(torch.zeros(1, 1, 20, 20))(values)
        assert_approximates("filtered values", got, expected, per_cent=10)

    @each("normalization", NORMALIZATIONS)
    def test_identical_points(self, implementation, normalization):
        values, features = random_values(1, 2, 50), torch.full((1, 3, 50), 0.3)
        got = prepare(features, normalization=normalization, implementation=implementation)(values)
        after = prepare(features, implementation=implementation)(values)
        assert_equal("normalised sums are means", after, values.mean(dim=2, keepdim=True).expand_as(values), 1e-5)
        if normalization != "none":
            assert_equal(normalization, got, after, 1e-5)

    @each("offset", [0.0, 1e3, -1e5])
    def test_offset_features(self, implementation, offset):
        """Only differences count: to a lattice of its own every offset is another sample of the same error."""
        features = 6 * torch.rand(1, 2, 400, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        values = random_values(1, 2, 400, dtype=torch.float64).abs()
        got = prepare(features + offset, implementation=implementation)(values)
        assert_approximates("filtered values", got, gaussian_filter(values, features, method="exact"), per_cent=8)


@each("theta", [3e-4, 1e-4, 1e-5, 1e-6, 1e-7, 1e-9])
def test_narrow_is_right_or_refused(theta):
    guide, values = photo("coffee", 7, 8) + torch.linspace(0, 1, 56).view(1, 1, 7, 8), random_values(1, 3, 7, 8)
    try:
        got = Bilateral(theta, theta).prepare(guide)(values)
    except ValueError as error:
        assert str(error).startswith("features: ")  # noqa: PT017
        return
    assert_equal("filtered values", got, values, 1e-6)


@each("theta", [1e-13, 1e-20, 1e-30])
def test_too_narrow_for_numbers(theta):
    """More cells than float64 can number: an error in words, not an overflow (pydensecrf's #98)."""
    with pytest.raises(ValueError, match=r"^features: .*(larger bandwidths|NaN or infinity)"):
        Bilateral(theta, theta).prepare(photo("coffee", 6, 7))


@each("scale", [1e9, 1e15, 1e19, 1e25, 1e38])
@pytest.mark.parametrize("dimensions", [1, 2, 5, 8])
def test_huge_features_are_right_or_refused(scale, dimensions):
    """Two clouds `scale` apart: either each point hears its own cloud, or the features are named."""
    features = torch.zeros(1, dimensions, 8, dtype=torch.float64)
    features[:, :, 4:] = scale
    values = random_values(1, 2, 8, dtype=torch.float64)
    try:
        got = gaussian_filter(values, features)
    except ValueError as error:
        assert str(error).startswith("features: ")  # noqa: PT017
        return
    means = [part.mean(dim=2, keepdim=True).expand_as(part) for part in values.split(4, dim=2)]
    assert_equal("filtered values", got, torch.cat(means, dim=2), 1e-9)


@pytest.mark.parametrize("kernel", [Bilateral(160, 3), Bilateral(3, 13), Spatial(3)], ids=str)
def test_long_strips(kernel):
    """30,000 pixels as a line, equal to the reference; as a row and a column the same, but for the lattice's error."""
    guide, values = photo("coffee", 150, 200)[:, :1].reshape(1, 1, -1), random_values(1, 2, 30_000).abs()
    line = kernel.prepare(guide)(values)
    for shape in ((1, 30_000), (30_000, 1)):
        got = kernel.prepare(guide.view(1, 1, *shape))(values.view(1, 2, *shape))
        assert_approximates(f"{shape}", got.flatten(2), line, per_cent=0.1 if isinstance(kernel, Spatial) else 10)
    if kernel != Bilateral(3, 13):  # 60,000 vertices: the reference takes its time
        assert_equal("filtered values", line, kernel.prepare(guide, implementation="reference")(values), 1e-5)


@pytest.mark.parametrize("row", ROWS)
@each("shape", [(1,), (1, 1), (1, 1, 1)])
def test_one_point(row, shape):
    """Normalised, one point hears itself and nothing else."""
    values = random_values(2, 3, *shape).to(device_for(row))
    for normalization in NORMALIZATIONS[:3]:
        got = prepared(row, shape, batch=2, normalization=normalization)(values)
        assert_equal(normalization, got, values, 1e-6)


@pytest.mark.parametrize("row", ROWS)
@each("normalization", NORMALIZATIONS)
def test_empty_batch(row, normalization):
    gaussian = prepared(row, (4, 5), batch=0, normalization=normalization)
    values = torch.zeros(0, 3, 4, 5, device=device_for(row))
    assert gaussian(values).shape == values.shape
    assert gaussian.transpose(values).shape == values.shape


@pytest.mark.parametrize("row", ROWS)
def test_no_channels(row):
    values = torch.zeros(2, 0, 4, 5, device=device_for(row))
    assert prepared(row, (4, 5), batch=2)(values).shape == values.shape


@pytest.mark.parametrize("row", ROWS)
def test_no_points(row):
    values = torch.zeros(2, 3, 0, 5, device=device_for(row))
    assert prepared(row, (0, 5), batch=2)(values).shape == values.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_guides_of_a_wide_image(dtype):
    """Positions are counted in float32: in float16 they would stop at 2048."""
    guide, values = torch.zeros(1, 1, 1, 4000, dtype=dtype), random_values(1, 1, 1, 4000)
    got = Bilateral(5, 5).prepare(guide)(values)
    assert_equal("filtered values", got, Bilateral(5, 5).prepare(guide.float())(values), 0)


def test_bandwidths_of_features():
    guide, values = random_values(1, 3, 30), random_values(1, 2, 30)
    got = Features(theta=0.5).prepare(guide)(values)
    assert_equal("filtered values", got, gaussian_filter(values, guide * 2), 1e-6)
