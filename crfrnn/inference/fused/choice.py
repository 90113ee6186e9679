"""Whether the fused recurrence runs a problem, and if not, why."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.filtering.methods import preload as preload_filters
from crfrnn.filtering.operator import Grid, Kernels
from crfrnn.inference.problem import Problem
from crfrnn.runtime.gpu import triton_ready
from crfrnn.runtime.layout_gpu import readable
from crfrnn.runtime.loading import load as load_module

MOST_LABELS = 1024  # that the registers of one program on a GPU hold
TWINS: dict[Kernels, str] = {  # of kernels, the module with the recurrence that is fused with them
    "numba": "crfrnn.inference.fused.recurrence_cpu",
    "triton": "crfrnn.inference.fused.recurrence_gpu",
}


def fused(problem: Problem) -> str | None:
    """None where `recurrence_cpu` or `recurrence_gpu` takes the problem, else the reason why neither does."""
    scores, filters = problem.scores, problem.filters
    if scores.device.type not in ("cpu", "cuda"):
        return f"its kernels run on the CPU and on CUDA, the logits are on {scores.device.type}"
    kernels = _kernels(filters)
    reasons = [_refused(gaussian, kernels) for gaussian in filters]
    reasons.append(_refused_scores(scores, kernels))
    return next((reason for reason in reasons if reason is not None), None)


def _refused(gaussian: GaussianFilter, kernels: Kernels | None) -> str | None:
    form = gaussian.operator.form
    if form is None or form.kernels != kernels:
        return f"{type(gaussian.operator).__name__} is filtered by itself"
    if torch.is_grad_enabled() and gaussian.operator.features is not None:
        return "the features of a filter need a gradient"
    if kernels == "triton" and isinstance(form, Grid) and (gaussian.before is not None or gaussian.after is not None):
        return "a separable filter is within a mask"
    if gaussian.left_out is not None:
        return "a filter leaves out the term j = i"
    return None if gaussian.dtype == torch.float32 else f"a filter was prepared in {gaussian.dtype}"


def _refused_scores(scores: Tensor, kernels: Kernels | None) -> str | None:
    if scores.dtype == torch.float64:
        return f"it computes in float32, not {scores.dtype}"
    if not scores.numel():
        return "there is nothing to infer"
    if kernels == "triton" and scores.shape[1] > MOST_LABELS:
        return f"it keeps at most {MOST_LABELS} labels in registers, there are {scores.shape[1]}"
    return None


def _kernels(filters: Sequence[GaussianFilter]) -> Kernels | None:
    """Those of the first filter, None where it is filtered by itself: all filters must have the same."""
    form = filters[0].operator.form
    return None if form is None else form.kernels


def load(problem: Problem) -> Callable[..., Tensor]:
    """The fused recurrence for a problem that `fused` accepts; loads its kernels at first use."""
    kernels = _kernels(problem.filters)
    assert kernels is not None, "`fused` accepts no such filters"
    return load_module(TWINS[kernels], "mean_field")


def load_trajectory(problem: Problem) -> Callable[..., Iterator[Tensor]] | None:
    """The same, keeping the marginals of every iteration; None on a GPU, where there is no such thing."""
    return load_module(TWINS["numba"], "trajectory") if _kernels(problem.filters) == "numba" else None


def load_settled(problem: Problem) -> Callable[..., tuple[Tensor, list[int]]] | None:
    """The recurrence until each image has settled; None on a GPU, likewise."""
    if _kernels(problem.filters) != "numba":
        return None
    return load_module("crfrnn.inference.fused.settling_cpu", "settled")


def load_vanishing(problem: Problem) -> Callable[..., tuple[Tensor, list[int]]] | None:
    """Marginals without the labels that vanish, and how many iterations each image took; None on a GPU, likewise, and
    while a program is being recorded."""
    if _kernels(problem.filters) != "numba" or not readable(problem.scores):
        return None
    return load_module("crfrnn.inference.fused.vanishing_cpu", "marginals")


def load_two_labels(problem: Problem) -> Callable[..., Tensor] | None:
    """Marginals of two labels on one channel; None where there are others, and where there is no such thing."""
    if _kernels(problem.filters) != "numba" or not readable(problem.scores) or problem.scores.shape[1] != 2:
        return None
    return load_module("crfrnn.inference.fused.two_labels_cpu", "marginals")


def preload() -> None:
    """See `filtering.methods.preload`; a layer does it when it is made, as it may be compiled before it is called."""
    preload_filters()
    load_module(TWINS["numba"], "mean_field")
    if triton_ready():
        load_module(TWINS["triton"], "mean_field")
