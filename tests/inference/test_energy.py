"""Energies: against loops over pixels and labels, and against the truth that all labellings tell."""

import math

import numpy as np
import pytest
import torch

from crfrnn import Features, Spatial
from crfrnn.filtering.gaussian_filter import prepare
from crfrnn.inference.energy import entropy, free_energy, gibbs_energy, mean_energy
from crfrnn.inference.recurrence import iterates
from tests.support import oracle
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import NORMALIZATIONS, SmallCRF, potts, random_features, random_values, weights_of


@each("normalized", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ["scalar", "class", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_gibbs_energy_equals_the_oracle(dtype, kind, normalized):
    shape, labels = (3, 4), 3
    logits, mu = random_values(2, labels, *shape, dtype=dtype), random_values(labels, labels, dtype=dtype, seed=7)
    features = [random_features(2, 2, shape, dtype=dtype, seed=m) for m in range(2)]
    weights = weights_of(kind, 2, labels, dtype=dtype)
    filters = [Features(method="exact").prepare(f, normalization=normalized) for f in features]
    x = random_values(2, labels, *shape, seed=9).argmax(dim=1)
    got = gibbs_energy(x, logits, filters, weights, mu)
    expected = [
        oracle.gibbs_energy(tuple(labelling), u, list(f), weights.double().numpy(), mu.double().numpy(), normalized)
        for labelling, u, *f in zip(
            x.flatten(1).tolist(), *(t.double().flatten(2).numpy() for t in (logits, *features)), strict=True
        )
    ]
    assert_equal("E(x)", got, torch.tensor(expected, dtype=torch.float64), 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("kind", ["potts", "learned"])
def test_mean_energy_is_the_mean_over_labellings_but_for_the_self_term(kind):
    problem = SmallCRF(labels=2, kind=kind)
    q = random_values(1, 2, 8, dtype=torch.float64, seed=4).softmax(dim=1)
    energies = oracle.enumerate_labellings(*problem.arrays()).energies
    mean = sum(math.prod(float(q[0, label, i]) for i, label in enumerate(x)) * e for x, e in energies.items())
    assert mean_energy(q, *problem.arguments()).item() - self_term(problem, q) == pytest.approx(mean, rel=1e-9)


def self_term(problem: SmallCRF, q: torch.Tensor) -> float:
    """1/2 sum_i <Q_i, P_ii Q_i>, with the diagonals of the normalised kernels."""
    _, features, weights, mu, normalization = problem.arrays()
    own = 0.0
    for w, f in zip(weights[:, 0], features, strict=True):
        diagonal = np.diag(oracle.normalised(oracle.kernel(f), normalization))
        own += 0.5 * w * np.einsum("i,li,lk,ki->", diagonal, q[0].numpy(), mu, q[0].numpy())
    return float(own)


@pytest.mark.parametrize("strength", [0.3, 3.0])
def test_free_energy_is_a_divergence_up_to_log_z_and_the_self_term(strength):
    """KL(Q || P) over all 6,561 labellings."""
    problem = SmallCRF(strength=strength)
    truth = oracle.enumerate_labellings(*problem.arrays())
    q = random_values(1, 3, 8, dtype=torch.float64, seed=5).softmax(dim=1)
    log_q = q[0].log().numpy()
    divergence = 0.0
    for x, energy in truth.energies.items():
        log_probability = sum(log_q[label, i] for i, label in enumerate(x))
        divergence += math.exp(log_probability) * (log_probability + energy + truth.log_z)
    got = free_energy(q, *problem.arguments()).item() - self_term(problem, q) + truth.log_z
    assert got == pytest.approx(divergence, rel=1e-9)
    assert divergence > 0


def test_the_gradient_is_minus_the_update():
    """dE/dQ = P Q - U where P is symmetric: what all solvers rely on."""
    logits, filters, weights, mu = SmallCRF(kind="learned").arguments()
    q = logits.softmax(dim=1).requires_grad_()
    (gradient,) = torch.autograd.grad(mean_energy(q, logits, filters, weights, mu).sum(), q)
    (now, *_) = iterates(logits, filters, weights, mu, 0)
    assert_equal("dE/dQ", gradient, -now.updated, 1e-12)


def test_potts_with_a_weight_for_each_class_has_an_energy():
    """What learning makes of the Potts model: its matrix is not symmetric, and it is descended all the same."""
    logits, filters, _, mu = SmallCRF().arguments()
    weights = weights_of("class", 2, 3, dtype=torch.float64)
    q = random_values(1, 3, 8, dtype=torch.float64, seed=4).softmax(dim=1).requires_grad_()
    (gradient,) = torch.autograd.grad(mean_energy(q, logits, filters, weights, mu).sum(), q)
    alike = gradient + next(iter(iterates(logits, filters, weights, mu, 0))).problem(q.detach())
    assert_equal("gradient + Qu", alike, alike.mean(dim=1, keepdim=True).expand_as(alike), 1e-10)
    states = list(iterates(logits, filters, weights, mu, 20))
    energies = [now.free_energy.item() for now in states]
    assert np.diff(energies).max() < 1e-9
    assert free_energy(states[-1].q, logits, filters, weights, mu).item() == pytest.approx(energies[-1])


def test_normalisation_after_descends_where_every_pixel_counts_as_its_neighbours_do():
    """One kernel, D^-1 K: the free energy with n_i times the pixel i, n = K 1, has a symmetric P again."""
    problem = SmallCRF(strength=6.0, normalization="after")
    features, w = problem.features[0], torch.full((1, 1), 6.0, dtype=torch.float64)
    plain = prepare(features, method="exact", normalization="none")
    n = plain(torch.ones_like(features[:, :1]))
    values = []
    for now in iterates(problem.logits, [prepare(features, method="exact")], w, problem.mu, 20):
        pairs = 0.5 * (now.q * (problem.mu @ plain(now.q)) * w).sum()
        values.append(float((n * now.q * (now.q.log() - problem.logits)).sum() + pairs))
    assert np.diff(values).max() < 1e-9


def test_a_labelling_is_a_marginal_of_zeros_and_ones():
    logits = random_values(2, 3, 6, 7)
    arguments = logits, [Spatial(1.5).prepare(logits)], torch.ones(1, 1), potts(3)
    x = logits.argmax(dim=1)
    q = torch.nn.functional.one_hot(x, 3).movedim(-1, 1).float()
    assert_equal("E", gibbs_energy(x, *arguments), free_energy(q, *arguments), 1e-6)
    assert entropy(q).abs().max() == 0


def test_entropy_of_uniform_marginals():
    assert entropy(torch.full((2, 4, 3, 5), 0.25)).tolist() == pytest.approx([15 * math.log(4)] * 2)


def test_forbidden_labels():
    logits = random_values(1, 3, 4, 5)
    logits[:, 1, :2] = -torch.inf
    arguments = logits, [Spatial(1.5).prepare(logits)], torch.ones(1, 1), potts(3)
    assert torch.isfinite(free_energy(logits.softmax(dim=1), *arguments)).all()
    assert gibbs_energy(torch.ones(1, 4, 5, dtype=torch.long), *arguments) > 1e29


class TestErrors:
    arguments = (torch.zeros(1, 3, 4, 5), [Spatial(1).prepare(torch.zeros(1, 1, 4, 5))], torch.ones(1, 1), potts(3))

    @pytest.mark.parametrize("labels", [torch.zeros(4, 5).long(), torch.zeros(1, 4, 5), torch.full((1, 4, 5), 3)])
    def test_labels(self, labels):
        with pytest.raises(ValueError, match=r"^labels: "):
            gibbs_energy(labels, *self.arguments)

    def test_marginals(self):
        with pytest.raises(ValueError, match=r"^q: expected the shape of the logits"):
            free_energy(torch.zeros(1, 3, 5, 4), *self.arguments)
