"""T iterations: against the oracle, against known answers, and their gradients."""

import numpy as np
import pytest
import torch

from crfrnn import Bilateral, Features, Spatial, iterates, mean_field, trajectory
from crfrnn.inference.recurrence import check_iterations, recurrence
from tests.support import oracle
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import KNOWN, NORMALIZATIONS, potts, random_features, random_values, weights_of

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
KINDS = ["scalar", "class", "full"]
METHODS = ["exact", "permutohedral"]


@each("normalized", NORMALIZATIONS)
@each("shape", [(12,), (3, 4), (2, 3, 2)])
@each("iterations", [0, 1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_equals_the_oracle(dtype, iterations, shape, normalized):
    labels = 3
    logits = random_values(2, labels, *shape, dtype=dtype)
    features = [random_features(2, 2, shape, dtype=dtype, seed=m) for m in range(2)]
    weights, mu = weights_of("class", 2, labels, dtype=dtype), potts(labels, dtype=dtype)
    filters = [Features(method="exact").prepare(f, normalization=normalized) for f in features]
    got = mean_field(logits, filters, weights, mu, iterations)
    expected = [
        oracle.mean_field(u, list(f), weights.double().numpy(), mu.double().numpy(), iterations, normalized)
        for u, *f in zip(*(t.double().flatten(2).numpy() for t in (logits, *features)), strict=True)
    ]
    assert_equal("logits after T iterations", got, np.stack(expected).reshape(logits.shape), TOLERANCE[dtype])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [2, 5])
def test_equals_the_oracle_for_learned_parameters(kind, labels):
    """Weights of each kind and a random, asymmetric compatibility."""
    logits, features = random_values(1, labels, 8), random_features(1, 3, (8,))
    weights, mu = weights_of(kind, 1, labels), random_values(labels, labels, seed=7)
    got = mean_field(logits, [Features(method="exact").prepare(features)], weights, mu, 4)
    arrays = [t.double().numpy() for t in (logits[0], features[0], weights, mu)]
    expected = oracle.mean_field(arrays[0], [arrays[1]], arrays[2], arrays[3], 4)
    assert_equal("logits after T iterations", got[0], expected, 1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("problem", KNOWN, ids=lambda problem: problem.name)
class TestKnownAnswers:
    @each("iterations", [1, 2, 7])
    def test_difference(self, problem, method, iterations):
        kernel = Features(theta=1.0, method=method)
        weights = torch.full((1, 1), problem.weight)
        got = mean_field(problem.logits, [kernel.prepare(problem.guide)], weights, potts(2), iterations)
        difference = got[0, 0] - got[0, 1]
        expected = np.array(problem.difference(iterations))
        assert_equal("U(0) - U(1), beside 10", difference + 10, expected + 10, 1e-6)

    @each("iterations", [1, 2, 7])
    def test_attraction_instead_of_penalty(self, problem, method, iterations):
        """-I attracts as 1 - I repels: the same marginals, other logits. Signs mixed up would show here."""
        filters = [Features(theta=1.0, method=method).prepare(problem.guide)]
        weights = torch.full((1, 1), problem.weight)
        both = [mean_field(problem.logits, filters, weights, mu, iterations) for mu in (potts(2), -torch.eye(2))]
        assert_equal("marginals", both[1].softmax(dim=1), both[0].softmax(dim=1), 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_pixel_is_outvoted(method):
    """A two-coloured picture with one wrong pixel on each side: both are put right, the edge stays where it is."""
    truth = torch.zeros(12, 16, dtype=torch.int64)
    truth[:, 8:] = 1
    image = torch.where(truth == 0, 40.0, 200.0).expand(1, 3, 12, 16)
    wrong = truth.clone()
    wrong[4, 3], wrong[7, 12] = 1, 0
    logits = 2.0 * torch.nn.functional.one_hot(wrong, 2).permute(2, 0, 1).unsqueeze(0).float()
    filters = [Bilateral(20, 10, method=method).prepare(image), Spatial(1.5).prepare(image)]
    got = mean_field(logits, filters, torch.tensor([[4.0], [2.0]]), potts(2), 5)
    assert torch.equal(got.argmax(dim=1)[0], truth)


@each("kind", [np.int64, np.int32, np.uint8])
def test_numbers_of_numpy_are_whole_numbers(kind):
    logits, weights = torch.randn(1, 2, 5, 6), torch.ones(1, 1)
    arguments = logits, [Spatial(1.5).prepare(logits)], weights, 1 - torch.eye(2)
    assert torch.equal(mean_field(*arguments, kind(3)), mean_field(*arguments, 3))
    assert len(list(iterates(*arguments, kind(3)))) == len(list(trajectory(*arguments, kind(3)))) == 4
    assert type(check_iterations(kind(3))) is int


def test_no_iterations_return_the_logits():
    logits = random_values(1, 3, 4, 5)
    got = mean_field(logits, [Spatial(1).prepare(logits)], torch.ones(1, 1), potts(3), 0)
    assert torch.equal(got, logits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_logits(dtype):
    """Computed in float32, given back in the dtype of the logits."""
    logits = random_values(1, 3, 6, 7).to(dtype)
    filters = [Spatial(1.5).prepare(logits)]
    got = mean_field(logits, filters, torch.ones(1, 1), potts(3), 5)
    assert got.dtype == dtype
    expected = mean_field(logits.float(), filters, torch.ones(1, 1), potts(3), 5)
    assert_equal("logits after T iterations", got, expected.to(dtype), 0)


def kernels_for_gradients(method: str) -> list:
    if method == "separable":
        return [Spatial(0.8), Spatial((2.0, 0.5))]
    return [Bilateral(2, 40, method=method), Features(30.0, method=method)]


@pytest.mark.parametrize("learned", [False, True], ids=["potts", "learned"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [*METHODS, "separable"])
def test_gradcheck(method, kind, learned):
    """float64: logits, kernel weights, compatibility; through two kernels and two iterations."""
    guide = 100 * random_features(1, 3, (2, 2), spread=1.0, dtype=torch.float64)
    filters = [kernel.prepare(guide) for kernel in kernels_for_gradients(method)]
    logits = random_values(1, 3, 2, 2, dtype=torch.float64).requires_grad_()
    weights = weights_of(kind, 2, 3, dtype=torch.float64).requires_grad_()
    mu = random_values(3, 3, dtype=torch.float64) if learned else potts(3, dtype=torch.float64)
    mu.requires_grad_()
    assert torch.autograd.gradcheck(lambda u, w, m: mean_field(u, filters, w, m, 2), (logits, weights, mu))


@pytest.mark.parametrize("normalized", NORMALIZATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_gradcheck_of_normalizations(method, normalized):
    """Normalisations move to the other side in the transposed filter."""
    guide = 100 * random_features(1, 3, (2, 3), spread=1.0, dtype=torch.float64)
    filters = [Bilateral(2, 40, method=method).prepare(guide, normalization=normalized)]
    inputs = random_values(1, 2, 2, 3, dtype=torch.float64), weights_of("class", 1, 2, dtype=torch.float64)
    inputs = [tensor.requires_grad_() for tensor in (*inputs, potts(2, dtype=torch.float64))]
    assert torch.autograd.gradcheck(lambda u, w, m: mean_field(u, filters, w, m, 2), inputs)


def test_reference_is_the_loop():
    """`recurrence` is what it says: softmax and iteration, T times."""
    logits, guide = random_values(1, 3, 5, 6, dtype=torch.float64), torch.zeros(1, 1, 5, 6, dtype=torch.float64)
    filters, weights, mu = [Spatial(1.0).prepare(guide)], torch.ones(1, 1).double(), potts(3, dtype=torch.float64)
    twice = recurrence(logits, filters, weights, mu, 2)
    message = filters[0](recurrence(logits, filters, weights, mu, 1).softmax(dim=1))
    assert_equal("H2(2)", twice, logits - (message.sum(dim=1, keepdim=True) - message), 1e-12)


class TestErrors:
    filters = (Spatial(1.0).prepare(torch.zeros(1, 1, 4, 5)),)

    def call(self, shape=(1, 3, 4, 5), weights=(1, 3), mu=(3, 3), iterations=2):
        return mean_field(torch.zeros(*shape), self.filters, torch.ones(*weights), torch.ones(*mu), iterations)

    def test_what_is_right(self):
        assert self.call().shape == (1, 3, 4, 5)

    @pytest.mark.parametrize("shape", [(3, 20), (1, 3, 5, 4), (1, 3, 20), (1, 3, 4, 5, 1)], ids=str)
    def test_logits(self, shape):
        with pytest.raises(ValueError, match=r"^logits: "):
            self.call(shape=shape)

    @pytest.mark.parametrize("weights", [(3,), (2, 3), (1, 2), (1, 3, 2), (3, 3), (1, 1, 1)], ids=str)
    def test_kernel_weights(self, weights):
        with pytest.raises(ValueError, match=r"^kernel_weights: expected one of"):
            self.call(weights=weights)

    @pytest.mark.parametrize("mu", [(3,), (2, 2), (3, 2), (1, 3, 3)], ids=str)
    def test_compatibility(self, mu):
        with pytest.raises(ValueError, match=r"^compatibility: expected \(3, 3\)"):
            self.call(mu=mu)

    @pytest.mark.parametrize("iterations", [-1, 2.0, None, True, np.int64(-1), np.float32(2), np.True_])
    def test_iterations(self, iterations):
        with pytest.raises(ValueError, match=r"^iterations: "):
            self.call(iterations=iterations)

    def test_no_kernels(self):
        with pytest.raises(ValueError, match=r"^(filters|kernel_weights): "):
            mean_field(torch.zeros(1, 3, 4), [], torch.ones(0, 3), torch.ones(3, 3), 2)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("batch", [1, 3])
    def test_batch_of_the_filters(self, batch, method):
        filters = [Bilateral(5, 20, method=method).prepare(torch.zeros(2, 1, 4, 5))]
        with pytest.raises(ValueError, match=r"^(logits|values): "):
            mean_field(torch.zeros(batch, 3, 4, 5), filters, torch.ones(1, 1), potts(3), 2)


def test_mixed_devices():
    filters, mu = [Spatial(2.0).prepare(torch.zeros(1, 3, 4, 5))], 1 - torch.eye(2)
    with pytest.raises(ValueError, match=r"^logits: on meta, but the guide is on cpu; move one of them"):
        mean_field(torch.zeros(1, 2, 4, 5, device="meta"), filters, torch.ones(1, 1), mu)
    with pytest.raises(ValueError, match=r"^compatibility: on meta, but the logits are on cpu; move one of them"):
        mean_field(torch.zeros(1, 2, 4, 5), filters, torch.ones(1, 1), mu.to("meta"))
