"""Whether the fused recurrence runs a problem, and if not, why."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.filtering.methods import preload as preload_filters
from crfrnn.inference.problem import Problem
from crfrnn.runtime import gpu
from crfrnn.runtime.loading import load as load_module

MOST_LABELS = 1024  # that the registers of one program on a GPU hold
TWINS = {"numba": "crfrnn.inference.fused.recurrence_cpu", "triton": "crfrnn.inference.fused.recurrence_gpu"}


def fused(problem: Problem) -> str | None:
    """None where `recurrence_cpu` or `recurrence_gpu` takes the problem, else the reason why neither does."""
    scores, filters = problem.scores, problem.filters
    if scores.device.type not in ("cpu", "cuda"):
        return f"its kernels run on the CPU and on CUDA, the logits are on {scores.device.type}"
    twin = _twin(filters)
    reasons = [_refused(gaussian, twin) for gaussian in filters]
    reasons.append(_refused_scores(scores, twin))
    return next((reason for reason in reasons if reason is not None), None)


def _refused(gaussian: GaussianFilter, twin: str | None) -> str | None:
    if not twin or getattr(gaussian.operator, "fusable", None) != twin:
        return f"{type(gaussian.operator).__name__} is filtered by itself"
    if torch.is_grad_enabled() and getattr(gaussian.operator, "features", None) is not None:
        return "the features of a filter need a gradient"
    if gaussian.left_out is not None:
        return "a filter leaves out the term j = i"
    return None if gaussian.dtype == torch.float32 else f"a filter was prepared in {gaussian.dtype}"


def _refused_scores(scores: Tensor, twin: str | None) -> str | None:
    if scores.dtype == torch.float64:
        return f"it computes in float32, not {scores.dtype}"
    if not scores.numel():
        return "there is nothing to infer"
    if twin == "triton" and scores.shape[1] > MOST_LABELS:
        return f"it keeps at most {MOST_LABELS} labels in registers, there are {scores.shape[1]}"
    return None


def _twin(filters: Sequence[GaussianFilter]) -> str | None:
    """Whose kernels the first filter can be fused by: all must have the same."""
    return getattr(filters[0].operator, "fusable", None)


def load(problem: Problem) -> Callable[..., Tensor]:
    """The fused recurrence for a problem that `fused` accepts; loads its kernels at first use."""
    return load_module(TWINS[_twin(problem.filters) or ""], "mean_field")


def load_trajectory(problem: Problem) -> Callable[..., Iterator[Tensor]] | None:
    """The same, keeping the marginals of every iteration; None on a GPU, where there is no such thing."""
    return load_module(TWINS["numba"], "trajectory") if _twin(problem.filters) == "numba" else None


def preload() -> None:
    """See `filtering.methods.preload`; a layer does it when it is made, as it may be compiled before it is called."""
    preload_filters()
    load_module(TWINS["numba"], "mean_field")
    if gpu.triton_ready():
        load_module(TWINS["triton"], "mean_field")
