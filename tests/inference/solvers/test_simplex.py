"""Points of the simplex that solvers ask for: sparsemax, and softmax with a quadratic term."""

import numpy as np
import pytest
import torch

from crfrnn.inference.solvers import sparsemax
from crfrnn.inference.solvers.convergent import log_of_quadratic_softmax
from tests.support.compare import assert_equal
from tests.support.each import each
from tests.support.problems import random_values


class TestSparsemax:
    @each("labels", [1, 2, 3, 21])
    @each("scale", [0.0, 0.1, 1.0, 100.0])
    def test_is_the_projection(self, scale, labels):
        """Against all supports: the one whose projection is feasible and nearest."""
        values = scale * random_values(2, labels, 5, dtype=torch.float64)
        got = sparsemax(values)
        for b in range(2):
            for i in range(5):
                expected = project_by_brute_force(values[b, :, i].numpy())
                assert_equal("q", got[b, :, i].numpy(), expected, 1e-10)

    def test_gradcheck(self):
        values = random_values(2, 4, 3, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(sparsemax, (values,))
        assert torch.autograd.gradgradcheck(sparsemax, (values,))

    @each("c", [-1000.0, 1000.0, 2.0**20, -(2.0**40)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
    def test_what_all_labels_have_in_common_is_nothing(self, dtype, c):
        """Numbers that stay as they are when c is added: so does the result, which sums to 1."""
        values = random_values(2, 21, 50, dtype=dtype)
        shifted = values + c
        got = sparsemax(shifted)
        assert_equal("q", got, sparsemax(shifted - c), 0)
        assert_equal("sums", got.sum(dim=1), torch.ones(2, 50, dtype=dtype), 1e-6 if dtype == torch.float32 else 1e-14)

    def test_forbidden_labels(self):
        values = torch.tensor([0.2, -torch.inf, 0.1]).view(1, 3, 1)
        assert sparsemax(values).flatten().tolist() == pytest.approx([0.55, 0, 0.45])

    def test_ties(self):
        assert sparsemax(torch.zeros(1, 4, 1)).flatten().tolist() == [0.25] * 4


def project_by_brute_force(z: np.ndarray) -> np.ndarray:
    """The nearest of the projections onto the faces of the simplex; the largest values are on the right one."""
    best, nearest = None, np.inf
    order = np.argsort(-z)
    for size in range(1, len(z) + 1):
        face = order[:size]
        q = np.zeros(len(z))
        q[face] = z[face] - (z[face].sum() - 1) / size
        if q.min() >= -1e-12 and ((q - z) ** 2).sum() < nearest:
            best, nearest = q, ((q - z) ** 2).sum()
    assert best is not None
    return best


class TestQuadraticSoftmax:
    @each("c", [1e-3, 1.0, 30.0, 1000.0])
    @each("scale", [0.1, 3.0, 100.0])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
    def test_solves_its_equation(self, dtype, scale, c):
        a = scale * random_values(3, 21, 50, dtype=dtype)
        y = log_of_quadratic_softmax(a, torch.tensor(c, dtype=dtype))
        assert_equal(
            "sum of q", y.exp().sum(dim=1), torch.ones(3, 50, dtype=dtype), 1e-5 if dtype == torch.float32 else 1e-12
        )
        nu = y + c * y.exp() - a  # the same for all labels of a pixel
        spread = (nu - nu.mean(dim=1, keepdim=True)).abs().max().item()
        assert spread < 30 * torch.finfo(dtype).eps * (c + a.abs().max().item())

    @pytest.mark.parametrize("scale", [1.0, 30.0])
    @each("c", [0.5, 1e2, 1e4, 1e6, 1e8])
    def test_a_step_in_float32_is_that_of_float64_for_any_curvature(self, c, scale):
        """Also where a label is forbidden; the sharper of two marginals is as exact as the others."""
        q = (scale * random_values(1, 21, 500, seed=1)).softmax(dim=1)
        logits = scale * random_values(1, 21, 500)
        logits[:, 3, ::2] = -1e30
        a = [logits.to(dtype) + torch.tensor(c, dtype=dtype) * q.to(dtype) for dtype in (torch.float32, torch.float64)]
        got, expected = (log_of_quadratic_softmax(values, values.new_tensor(c)).exp() for values in a)
        assert_equal("q", got.double(), expected, 3e-6)
        assert_equal("sum of q", expected.sum(dim=1), torch.ones(1, 500, dtype=torch.float64), 1e-11)

    def test_no_curvature_is_softmax(self):
        a = 3 * random_values(1, 5, 8, dtype=torch.float64)
        got = log_of_quadratic_softmax(a, torch.tensor(1e-12, dtype=torch.float64))
        assert_equal("log q", got, torch.log_softmax(a, dim=1), 1e-10)

    def test_gradcheck(self):
        a = 2 * random_values(2, 4, 3, dtype=torch.float64).requires_grad_()
        c = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(log_of_quadratic_softmax, (a, c))
