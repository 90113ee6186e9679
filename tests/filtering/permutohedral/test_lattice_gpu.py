"""The lattice in Triton: equal to the reference (rung 4), its numbers deterministic, nothing read back by the host."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from crfrnn.filtering import methods
from crfrnn.filtering.gaussian_filter import GaussianFilter, gaussian_filter, prepare
from crfrnn.runtime import layout_gpu
from tests.support.compare import assert_equal
from tests.support.no_sync import NoSync
from tests.support.problems import NORMALIZATIONS, device_for, random_features, random_values

ROW = next(row for row in methods.IMPLEMENTATIONS["permutohedral"] if row.name == "triton")
EQUAL = {torch.float32: 1e-5, torch.float64: 1e-12}
pytestmark = pytest.mark.triton


def module() -> ModuleType:
    """Where the operator lives; loaded late, as Triton may be absent."""
    return sys.modules[ROW.load().__module__]


def operator(gaussian: GaussianFilter) -> Any:
    return gaussian.operator


def lattice_of(gaussian: GaussianFilter) -> Any:
    return operator(gaussian).lattices


def pair(features: torch.Tensor, normalization: str = "none"):
    """The filter in Triton and the one to compare it with, on a device where both run."""
    features = features.to(device_for(ROW))
    return [prepare(features, normalization=normalization, implementation=name) for name in ("triton", "reference")]


def check_equal(features: torch.Tensor, channels: int, normalization: str = "none") -> None:
    ours, reference = pair(features, normalization)
    x = random_values(features.shape[0], channels, *features.shape[2:], dtype=features.dtype, seed=3)
    x = x.to(features.device if features.is_cuda else device_for(ROW))
    tolerance = EQUAL[features.dtype]
    assert_equal("filtered values", ours(x), reference(x), tolerance)
    assert_equal("transposed filter", ours.transpose(x), reference.transpose(x), tolerance)


class TestEqualsTheReference:
    @pytest.mark.parametrize("normalization", NORMALIZATIONS)
    def test_normalisations(self, normalization):
        check_equal(random_features(2, 5, (3, 5)), 3, normalization)

    @pytest.mark.parametrize("channels", [1, 2, 21, 150])
    def test_channels(self, channels):
        check_equal(random_features(1, 3, (7, 3)), channels)

    @pytest.mark.parametrize(
        ("batch", "dimensions", "shape"),
        [(1, 1, (17,)), (8, 2, (3, 2)), (2, 3, (2, 3, 3)), (1, 5, (1, 9)), (1, 7, (1,)), (2, 6, (3, 3))],
    )
    def test_shapes(self, batch, dimensions, shape):
        check_equal(random_features(batch, dimensions, shape), 2)

    def test_float64(self):
        check_equal(random_features(2, 3, (3, 4), dtype=torch.float64), 3)

    def test_images_of_a_batch_do_not_hear_each_other(self):
        features, x = random_features(1, 2, (4, 3)).expand(2, -1, -1, -1), random_values(2, 2, 4, 3)
        x[1] = 0
        ours, _ = pair(features)
        assert not ours(x.to(device_for(ROW)))[1].any()

    def test_vertices_of_many_points(self):
        """More than a run of entries at a vertex, and vertices whose entries lie across the ends of runs."""
        features = random_features(1, 2, (300,), spread=0.4)
        check_equal(features, 3)
        lattice = lattice_of(pair(features)[0])
        assert lattice.ghosts.max() >= 2

    def test_far_apart(self):
        check_equal(random_features(1, 3, (11,), spread=3000.0), 2)

    def test_points_on_faces(self):
        """Whole numbers lie on the faces of simplices, where a rounding error would make other vertices."""
        grid = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(3.0), indexing="ij"))[None]
        ours, reference = pair(grid)
        count = sum(lattice.count for lattice in operator(reference).lattices)
        assert int(lattice_of(ours).count) - int(lattice_of(ours).ghosts.sum()) == count
        check_equal(grid, 2)

    def test_half_precision_values(self):
        features, x = random_features(1, 3, (4, 5)), random_values(1, 3, 4, 5).half()
        ours, reference = pair(features, "after")
        x = x.to(device_for(ROW))
        assert ours(x).dtype == torch.float16
        assert_equal("from half precision", ours(x).float(), reference(x.float()), 1e-3)

    def test_no_points(self):
        ours, _ = pair(torch.zeros(2, 3, 0))
        assert ours(torch.zeros(2, 4, 0, device=device_for(ROW))).shape == (2, 4, 0)


class TestKeys:
    def test_two_words(self):
        """Eight dimensions spread so widely that one word does not hold a key."""
        features = random_features(2, 8, (6,), spread=400.0)
        assert module().words_needed(features, 2) == 2
        check_equal(features, 2)

    def test_two_words_give_the_same_lattice_as_one(self):
        features = random_features(2, 2, (5,)).to(device_for(ROW))
        one, two = (module().LatticeTensors(*module().build(features, words)) for words in (1, 2))
        rows = int(one.count)
        for name, a, b in zip(one._fields, one, two, strict=True):
            by_row = name in ("ghosts", "following", "previous")  # what is behind the last row says nothing
            assert torch.equal(a[..., :rows], b[..., :rows]) if by_row else torch.equal(a, b), name

    def test_many_features(self):
        """More bits than two words hold, of one image and of several; neighbours are among the points."""
        for batch, dimensions in ((1, 12), (2, 16)):
            features = random_features(batch, dimensions, (3,), spread=3e4, dtype=torch.float64)
            features = torch.cat([features, features + 0.3], dim=2)
            assert module().words_needed(features, batch) == 2
            check_equal(features, 2)

    def test_scattered_keys_give_the_same_filter(self, monkeypatch):
        features, x = random_features(2, 3, (9,)).to(device_for(ROW)), random_values(2, 2, 9).to(device_for(ROW))
        expected = prepare(features, implementation="triton")(x)
        monkeypatch.setattr(module(), "KEY_BITS", 3)
        assert module().words_needed(features, 2) == 2
        assert_equal("filtered values", prepare(features, implementation="triton")(x), expected, 1e-6)

    def test_what_cannot_be_numbered(self):
        features = random_features(1, 12, (4,), spread=1e15, dtype=torch.float64).to(device_for(ROW))
        with pytest.raises(
            ValueError, match=r"^features: as far as .* lattice cells from 0, more than can be numbered"
        ):
            prepare(features, implementation="triton")

    def test_too_many_points(self):
        with pytest.raises(ValueError, match=r"^features: 16 images .* split the batch, at most 5 images at a time"):
            module().LatticeOperator(torch.zeros(1, 1, 1).expand(16, 5, 2**26))
        with pytest.raises(ValueError, match=r"split the image into tiles"):
            module().LatticeOperator(torch.zeros(1, 1, 1).expand(1, 5, 2**30))


class TestMemory:
    def test_a_lattice_that_does_not_fit(self, monkeypatch):
        features = random_features(4, 3, (9,)).to(device_for(ROW))
        ROW.load()
        monkeypatch.setattr(layout_gpu, "spare", lambda needed, device: 5000)
        with pytest.raises(ValueError, match=r"^features: .* GB .* split the batch into \d+ or more parts"):
            prepare(features, implementation="triton")

    def test_tables_of_as_many_rows_as_there_are(self, monkeypatch):
        """Where memory is short, tables have the rows that are used and not all that there may be."""
        features, x = random_features(1, 2, (40,), spread=0.2), random_values(1, 2, 40).to(device_for(ROW))
        ours, reference = pair(features)
        room = 2 * 4 * 4 * int(lattice_of(ours).count)
        monkeypatch.setattr(layout_gpu, "spare", lambda needed, device: room)
        assert_equal("filtered values", ours(x), reference(x), 1e-5)
        monkeypatch.setattr(layout_gpu, "spare", lambda needed, device: room - 1)
        with pytest.raises(ValueError, match=r"^values: .*split the batch"):
            ours(x)


class TestGradient:
    def test_adjoint_identity(self):
        ours, _ = pair(random_features(2, 3, (4, 3), dtype=torch.float64), "after")
        x, y = (random_values(2, 5, 4, 3, dtype=torch.float64, seed=s).to(device_for(ROW)) for s in (3, 4))
        assert_equal("<K x, y>", (ours(x) * y).sum(), (x * ours.transpose(y)).sum(), 1e-12)

    def test_backward_is_the_transpose(self):
        ours, _ = pair(random_features(1, 3, (4, 3)), "symmetric")
        x, y = (random_values(1, 5, 4, 3, seed=s).to(device_for(ROW)) for s in (3, 4))
        x.requires_grad_()
        (grad,) = torch.autograd.grad(ours(x), x, y)
        assert_equal("gradient", grad, ours.transpose(y), 1e-6)

    @pytest.mark.parametrize("normalization", ["none", "symmetric"])
    def test_features_get_the_references_gradient(self, normalization):
        features = random_features(2, 3, (4, 3)).to(device_for(ROW)).requires_grad_()
        x, y = (random_values(2, 2, 4, 3, seed=s).to(device_for(ROW)) for s in (3, 4))
        grads = [torch.autograd.grad(gaussian(x), features, y)[0] for gaussian in pair(features, normalization)]
        assert_equal("gradient of the features", grads[0], grads[1], 1e-4)

    def test_ops_keep_torchs_contract(self):
        ours, _ = pair(random_features(1, 2, (3, 3)))
        x = random_values(1, 2, 9).to(device_for(ROW)).requires_grad_()
        torch.library.opcheck(torch.ops.crfrnn.permutohedral_filter_gpu.default, (x, *lattice_of(ours), False))


class TestRuns:
    def test_the_same_bits_every_time(self):
        features = random_features(1, 3, (60,), spread=0.5).to(device_for(ROW))
        x = random_values(1, 3, 60).to(features.device)
        first, second = (gaussian_filter(x, features, implementation="triton") for _ in range(2))
        assert_equal("second run", second, first, 0)

    def test_every_number_is_written(self, poison):
        features, x = random_features(2, 3, (4, 3)), random_values(2, 5, 4, 3).to(device_for(ROW))
        expected = pair(features)[1](x)
        poison()
        assert_equal("poisoned", pair(features)[0](x), expected, 1e-5)

    def test_the_host_reads_nothing_back(self):
        features, x = random_features(1, 3, (9,)).to(device_for(ROW)), random_values(1, 2, 9).to(device_for(ROW))
        with NoSync():
            lattice = module().build(features, 1)
            module().filter_points(x, *lattice, False)

    def test_under_torchs_compiler(self):
        """Building and filtering as one graph, without a question to the device."""
        features, x = random_features(1, 2, (7,)).to(device_for(ROW)), random_values(1, 2, 7).to(device_for(ROW))
        expected = gaussian_filter(x, features, implementation="triton")

        def run(x, features):
            return gaussian_filter(x, features, implementation="triton")

        compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
        assert_equal("compiled", compiled(x, features), expected, 1e-6)
