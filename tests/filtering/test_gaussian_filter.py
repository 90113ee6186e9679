"""The public filter: what is the same for every method and implementation."""

import warnings

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from crfrnn import Bilateral, Features, Spatial, gaussian_filter, mean_field
from crfrnn.filtering.gaussian_filter import POOR, prepare, prepare_grid
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import (
    METHOD_OF,
    NORMALIZATIONS,
    ROWS,
    photo,
    predictions,
    prepared,
    random_features,
    random_values,
    rows_of,
)

DENSE_METHODS = ["exact", "permutohedral"]


@pytest.mark.parametrize("row", ROWS)
class TestNormalizations:
    """Each normalisation follows from the same implementation's "none" (for the separable one up to its 0.1 %)."""

    def tolerance(self, row) -> float:
        return 1e-3 if METHOD_OF[row] == "separable" else 1e-5

    def run(self, row, normalization: str, values: torch.Tensor, transposed: bool = False) -> torch.Tensor:
        gaussian = prepared(row, tuple(values.shape[2:]), normalization=normalization)
        values = values.to(gaussian_device(row))
        return (gaussian.transpose(values) if transposed else gaussian(values)).cpu()

    @each("normalization", NORMALIZATIONS[:3])
    @each("transposed", [False, True])
    def test_from_the_plain_sum(self, row, normalization, transposed):
        values = random_values(1, 2, 9, 10).abs()
        n = self.run(row, "none", torch.ones(1, 1, 9, 10))
        before, after = {
            "after": (torch.ones(1), 1 / n),
            "before": (1 / n, torch.ones(1)),
            "symmetric": (n.rsqrt(), n.rsqrt()),
        }[normalization]
        if transposed:
            before, after = after, before
        expected = after * self.run(row, "none", before * values, transposed)
        got = self.run(row, normalization, values, transposed)
        assert_equal(normalization, got, expected, self.tolerance(row))

    def test_after_keeps_constants(self, row):
        ones = torch.ones(1, 2, 9, 10)
        assert_equal("filtered ones", self.run(row, "after", ones), ones, 1e-6)

    def test_before_keeps_the_sum(self, row):
        """True where K is symmetric. The lattice's blurs do not commute, so its n belongs to K alone, not to K'."""
        if METHOD_OF[row] == "permutohedral":
            pytest.skip("the lattice is not symmetric")
        values = random_values(1, 3, 9, 10).abs()
        got = self.run(row, "before", values)
        assert_equal("sums", got.sum(dim=(2, 3)), values.sum(dim=(2, 3)), 1e-5)

    def test_marginals_stay_marginals(self, row):
        """Normalised "after", probabilities stay between 0 and 1 and sum to 1."""
        q = random_values(1, 4, 9, 10).mul(5).softmax(dim=1)
        got = self.run(row, "after", q)
        assert got.min() >= 0
        assert got.max() <= 1 + 1e-6
        assert_equal("sums over labels", got.sum(dim=1), torch.ones(1, 9, 10), 1e-5)


def gaussian_device(row) -> str:
    return "cpu" if row.refuses(torch.device("cpu"), torch.float32) is None else "cuda"


@pytest.mark.parametrize("row", ROWS)
@each("normalization", NORMALIZATIONS)
def test_linear(row, normalization):
    x, y = random_values(1, 2, 6, 7, dtype=torch.float64), random_values(1, 2, 6, 7, dtype=torch.float64, seed=5)
    gaussian = prepared(row, (6, 7), normalization=normalization, dtype=torch.float64)
    x, y = x.to(gaussian_device(row)), y.to(gaussian_device(row))
    assert_equal("K(2x - 3y)", gaussian(2 * x - 3 * y), 2 * gaussian(x) - 3 * gaussian(y), 1e-12)


class TestDtypes:
    @pytest.mark.parametrize("method", DENSE_METHODS)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_is_computed_in_float32(self, method, dtype):
        values, features = random_values(1, 2, 8, 9).to(dtype), random_features(1, 3, (8, 9)).to(dtype)
        got = gaussian_filter(values, features, method=method)
        assert got.dtype == dtype
        expected = gaussian_filter(values.float(), features.float(), method=method)
        assert_equal("filtered values", got, expected.to(dtype), 0)

    @pytest.mark.parametrize("method", DENSE_METHODS)
    def test_float64_values_are_computed_in_float64(self, method):
        values, features = random_values(1, 2, 8, 9, dtype=torch.float64), random_features(1, 3, (8, 9))
        got = gaussian_filter(values, features, method=method)
        assert_equal("filtered values", got, gaussian_filter(values, features.double(), method=method), 1e-14)

    @pytest.mark.parametrize("kernel", [Bilateral(5, 20), Bilateral(5, 20, method="exact"), Spatial(2)], ids=str)
    @each("dtype", [torch.uint8, torch.int64, torch.float16, torch.bfloat16])
    def test_guides_of_any_dtype(self, kernel, dtype):
        guide, values = photo("coffee", 12, 16).to(dtype), random_values(1, 2, 12, 16)
        got, expected = kernel.prepare(guide)(values), kernel.prepare(guide.float())(values)
        assert got.dtype == torch.float32
        assert_equal("filtered values", got, expected, 0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_filters_give_back_the_dtype_of_the_values(self, dtype):
        values = random_values(1, 2, 8, 9).to(dtype)
        for gaussian in (Spatial(2).prepare(torch.zeros(1, 1, 8, 9)), prepare(random_features(1, 3, (8, 9)))):
            assert gaussian(values).dtype == dtype
            assert_equal("filtered values", gaussian(values), gaussian(values.float()).to(dtype), 0)

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
    def test_whole_numbers(self, dtype):
        """A one-hot label map is filtered as the numbers that it holds, or refused by name; never rounded down."""
        values, features = random_values(1, 2, 8, 9) > 0, random_features(1, 3, (8, 9))
        expected = gaussian_filter(values.float(), features)
        try:
            got = gaussian_filter(values.to(dtype), features)
        except ValueError as error:
            assert str(error).startswith("values: ")  # noqa: PT017
            return
        assert_equal("filtered values", got, expected, 0)


@pytest.mark.parametrize("row", ROWS)
class TestMemory:
    """Whatever the memory of the inputs looks like, and whatever lies in memory that was not yet written."""

    def test_not_contiguous(self, row):
        values = random_values(2, 6, 9, 16)[:, ::2, :, ::2].transpose(2, 3)
        assert not values.is_contiguous()
        gaussian = prepared(row, (8, 9), batch=2)
        values = values.to(gaussian_device(row))
        assert_equal("filtered values", gaussian(values), gaussian(values.contiguous()), 0)

    def test_expanded(self, row):
        gaussian = prepared(row, (8, 9), batch=2)
        values = random_values(1, 1, 8, 9).expand(2, 3, 8, 9).to(gaussian_device(row))
        assert_equal("filtered values", gaussian(values), gaussian(values.contiguous()), 0)

    def test_inputs_stay_as_they_are(self, row):
        gaussian = prepared(row, (8, 9))
        values = random_values(1, 3, 8, 9).to(gaussian_device(row))
        before = values.clone()
        gaussian(values)
        gaussian.transpose(values)
        assert torch.equal(values, before)

    @pytest.mark.parametrize(
        "shape", [pytest.param((4, 5), marks=pytest.mark.unjitted), (40, 50), (1, 70), (3, 20, 20)], ids=str
    )
    def test_poisoned(self, row, shape, poison):
        values = {channels: random_values(2, channels, *shape) for channels in (1, 9)}

        def run() -> dict[str, torch.Tensor]:
            gaussian, results = prepared(row, shape, batch=2, dimensions=3), {}
            for channels, on_cpu in values.items():
                on_device = on_cpu.to(gaussian_device(row))
                results[f"{channels} channels filtered"] = gaussian(on_device)
                results[f"{channels} channels by the transposed filter"] = gaussian.transpose(on_device)
            return results

        expected = run()
        poison()
        for quantity, got in run().items():
            assert_equal(quantity, got, expected[quantity], 0)


def test_read_only_arrays():
    """Tensors that share a read-only NumPy array: torch warns when they are made, nobody writes into them."""
    arrays = [random_values(1, 2, 8, 9).numpy(), random_features(1, 3, (8, 9)).numpy()]
    for array in arrays:
        array.setflags(write=False)
    copies = [array.copy() for array in arrays]
    with pytest.warns(UserWarning, match="not writable"):
        values, features = (torch.from_numpy(array) for array in arrays)
    for method in DENSE_METHODS:
        gaussian_filter(values, features, method=method)
    Spatial(2).prepare(features)(values)
    for array, copy in zip(arrays, copies, strict=True):
        assert np.array_equal(array, copy)


@pytest.mark.parametrize("method", DENSE_METHODS)
def test_features_not_contiguous(method):
    values, features = random_values(1, 2, 8, 9), random_features(1, 9, (8, 6)).permute(0, 3, 2, 1)[:, ::2]
    assert not features.is_contiguous()
    got = gaussian_filter(values, features, method=method)
    assert_equal("filtered values", got, gaussian_filter(values, features.contiguous(), method=method), 0)


@pytest.mark.parametrize("method", DENSE_METHODS)
@each("normalization", NORMALIZATIONS)
def test_public_function_is_the_prepared_filter(method, normalization):
    """The same bits; but "after" sums the ones as one channel more, and a product of matrices may round otherwise."""
    values, features = random_values(2, 3, 5, 6), random_features(2, 4, (5, 6))
    got = gaussian_filter(values, features, method=method, normalization=normalization)
    expected = prepare(features, method=method, normalization=normalization)(values)
    assert_equal("filtered values", got, expected, 1e-6 if (method, normalization) == ("exact", "after") else 0)


@pytest.mark.parametrize("method", DENSE_METHODS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8], ids=str)
def test_public_function_keeps_the_dtype(dtype, method):
    """Row sums above the largest float16, 65504, do not overflow; whole numbers give float32."""
    values = torch.full((1, 1, 300, 300), 2, dtype=dtype) if method != "exact" else torch.full((1, 1, 40), 2).to(dtype)
    out = gaussian_filter(values, torch.zeros(1, 2, *values.shape[2:]), method=method)
    assert out.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert_equal("filtered values", out.float(), torch.full(values.shape, 2.0), 1e-3)


@pytest.mark.parametrize("method", DENSE_METHODS)
def test_gradient_of_the_values(method):
    features = random_features(1, 2, (4, 3), dtype=torch.float64)
    for normalization in NORMALIZATIONS:
        values = random_values(1, 2, 4, 3, dtype=torch.float64).requires_grad_()
        gaussian = prepare(features, method=method, normalization=normalization)
        assert torch.autograd.gradcheck(gaussian, (values,))
        assert torch.autograd.gradcheck(gaussian.transpose, (values,))
        assert torch.autograd.gradgradcheck(gaussian, (values,))


@pytest.mark.parametrize("kernel", [Bilateral(5, 50, method="exact"), Bilateral(5, 50), Spatial(2)], ids=str)
def test_forward_mode_is_right_or_refused(kernel):
    """A filter is linear: the derivative in the direction v is the filtered v."""
    values, direction = random_values(1, 2, 8, 9), random_values(1, 2, 8, 9, seed=4)
    gaussian = kernel.prepare(photo("coffee", 8, 9))
    with forward_ad.dual_level():
        try:
            tangent = forward_ad.unpack_dual(gaussian(forward_ad.make_dual(values, direction))).tangent
        except (RuntimeError, NotImplementedError):
            return
        assert tangent is not None
        assert_equal("tangent", tangent, gaussian(direction), 1e-6)


def test_gradient_of_the_values_of_a_grid():
    values = random_values(1, 2, 4, 3, dtype=torch.float64).requires_grad_()
    for normalization in NORMALIZATIONS:
        gaussian = prepare_grid((4, 3), (1.5, 0.7), normalization=normalization, dtype=torch.float64)
        assert torch.autograd.gradcheck(gaussian, (values,))
        assert torch.autograd.gradcheck(gaussian.transpose, (values,))
        assert torch.autograd.gradgradcheck(gaussian, (values,))


class TestErrors:
    """Every message begins with the name of the argument that is wrong."""

    def test_method(self):
        with pytest.raises(ValueError, match=r"^method: 'fft' is none of exact, separable, permutohedral"):
            gaussian_filter(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), method="fft")

    def test_separable_needs_a_grid(self):
        with pytest.raises(ValueError, match=r"^method: 'separable' filters positions"):
            gaussian_filter(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), method="separable")

    @pytest.mark.parametrize("method", DENSE_METHODS)
    def test_normalization(self, method):
        with pytest.raises(ValueError, match=r"^normalization: 'both' is none of after, symmetric"):
            gaussian_filter(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), method=method, normalization="both")
        with pytest.raises(ValueError, match=r"^normalization: 'both' is none of after, symmetric"):
            Spatial(3).prepare(torch.zeros(1, 1, 4), normalization="both")

    @pytest.mark.parametrize("method", DENSE_METHODS)
    @each("bad", [float("nan"), float("inf"), -float("inf")])
    def test_not_finite(self, method, bad):
        features = torch.zeros(2, 3, 4, 5)
        features[1, 2, 3, 0] = bad
        with pytest.raises(ValueError, match=r"^features: NaN or infinity"):
            gaussian_filter(torch.zeros(2, 1, 4, 5), features, method=method)

    @pytest.mark.parametrize("kernel", [Bilateral(), Features(), Bilateral(method="exact")], ids=str)
    def test_guide_not_finite(self, kernel):
        guide = torch.zeros(1, 3, 4, 5)
        guide[0, 0, 0, 0] = float("nan")
        with pytest.raises(ValueError, match=r"(guide|features).*NaN"):
            kernel.prepare(guide)

    @pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 0, 4)], ids=str)
    def test_features_shape(self, shape):
        with pytest.raises(ValueError, match=r"^features: expected"):
            prepare(torch.zeros(*shape))

    @pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 1, 5), (1, 1, 4, 1), (1, 4, 1)], ids=str)
    def test_values_shape(self, shape):
        with pytest.raises(ValueError, match=r"^values: "):
            gaussian_filter(torch.zeros(*shape), torch.zeros(1, 1, 4))

    @pytest.mark.parametrize("row", ROWS)
    @each("shape", [(1, 1, 4, 6), (1, 1, 20), (4, 5), (1, 1, 4, 5, 1)])
    def test_values_of_another_grid(self, row, shape):
        gaussian = prepared(row, (4, 5))
        for filtering in (gaussian, gaussian.transpose):
            with pytest.raises(ValueError, match=r"^values: expected"):
                filtering(torch.zeros(*shape, device=gaussian_device(row)))

    @pytest.mark.parametrize("row", rows_of("exact", "permutohedral"))
    @each("batch", [1, 3])
    def test_values_of_another_batch(self, row, batch):
        """A filter of two images is not a filter of one or of three."""
        gaussian = prepared(row, (4, 5), batch=2)
        values = torch.ones(batch, 1, 4, 5, device=gaussian_device(row))
        with pytest.raises(ValueError, match=r"^values: "):
            gaussian(values)

    def test_batch_of_the_function(self):
        with pytest.raises(ValueError, match=r"^values: batch of 2, but features have a batch of 1"):
            gaussian_filter(torch.zeros(2, 1, 4), torch.zeros(1, 1, 4))


def test_values_on_another_device():
    filters = prepare(random_features(1, 2, (3, 4)))
    with pytest.raises(ValueError, match=r"^values: on meta, but the guide was on cpu; move one of them"):
        filters(torch.zeros(1, 2, 3, 4, device="meta"))
    with pytest.raises(ValueError, match=r"^values: on meta, but the features are on cpu; move one of them"):
        gaussian_filter(torch.zeros(1, 2, 3, 4, device="meta"), random_features(1, 2, (3, 4)))


@pytest.mark.parametrize("method", ["permutohedral", "exact"])
def test_a_batch_of_gradients(method):
    """`is_grads_batched`, what `torch.autograd.functional.jacobian(vectorize=True)` asks for."""
    features, values = random_features(1, 2, (6,)), random_values(1, 1, 6).requires_grad_()
    y = prepare(features, method=method)(values)
    rows = torch.eye(6).view(6, 1, 1, 6)
    (together,) = torch.autograd.grad(y, values, rows, retain_graph=True, is_grads_batched=True)
    alone = [torch.autograd.grad(y, values, row, retain_graph=True)[0] for row in rows]
    assert_equal("rows", together, torch.stack(alone), 1e-6)


class TestManyFeatures:
    """A lattice of many features works, and says that it is poor."""

    @each("dimensions", [POOR, 17, 20])
    def test_a_warning(self, dimensions):
        values, features = random_values(1, 2, 30), random_features(1, dimensions, (30,))
        message = (
            rf"^features: {dimensions} dimensions are many for a lattice.* PCA.* several kernels.* method='exact'$"
        )
        with pytest.warns(UserWarning, match=message):
            got = gaussian_filter(values, features)
        assert torch.isfinite(got).all()

    @each("dimensions, method", [(POOR - 1, "permutohedral"), (POOR, "exact")])
    def test_none(self, dimensions, method):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gaussian_filter(random_values(1, 2, 30), random_features(1, dimensions, (30,)), method=method)

    def test_twelve_bands_of_a_sensor(self):
        """Two positions and twelve bands of 12 bits, which once were more cells than could be numbered."""
        colours, mixture = photo("coffee", 24, 32)[0], random_features(1, 12, (3,), spread=1.0)[0]
        bands = (torch.einsum("bc,chw->bhw", mixture, colours) * 5).unsqueeze(0)
        logits, potts = predictions("coffee", height=24, width=32), 1 - torch.eye(4)
        lattice, exact = (
            mean_field(logits, [Bilateral(20, 60, method=m).prepare(bands)], torch.tensor([[5.0]]), potts).argmax(dim=1)
            for m in ("permutohedral", "exact")
        )
        assert (exact != logits.argmax(dim=1)).float().mean() > 0.01
        assert (lattice != exact).float().mean() < 0.05
