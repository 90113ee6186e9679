"""As many iterations as an image needs: until none of its marginals moves by more than a tolerance.

    T = the first t with  max_il |Q_i(l)(t) - Q_i(l)(t - 1)| <= tolerance,   at most `MOST_ITERATIONS`

Each image of a batch stops by itself. `fused/settling_cpu.py` is the fast twin.

*What it says of the next one.* With kernels normalised so that messages are weighted means ("after"), and w the sum of
their weights in the Potts model, no message moves by more than the tolerance, so that

    |Qu_i(l)(T + 1) - Qu_i(l)(T)| <= w tolerance,

and the odds of two labels change by a factor of at most exp(2 w tolerance): a label that leads the others by more than
2 w tolerance in Qu is the same after one iteration more. There is no such bound on all that follow: a boundary
may creep more slowly than the tolerance.
"""

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from crfrnn.inference.problem import Problem
from crfrnn.inference.solvers import Iterate
from crfrnn.runtime.layout_gpu import readable

SETTLED: Literal["settled"] = "settled"
Iterations: TypeAlias = int | Literal["settled"]
MOST_ITERATIONS = 100
FOR_INFERENCE = (
    'iterations: "settled" is for inference, without gradients; call it under torch.no_grad(), or give a number'
)


def largest_change(before: Tensor, now: Tensor) -> Tensor:
    """max |now - before| of each image, (B, ...) -> (B,)."""
    return (now - before).abs().flatten(1).amax(dim=1)


def while_moving(steps: Iterator[Iterate], tolerance: float) -> Iterator[Iterate]:
    """The iterates up to the one with which no image of the batch moves any more."""
    before = None
    for now in steps:
        yield now
        if before is not None and not bool((largest_change(before, now.q) > tolerance).any()):
            return
        before = now.q


def settled(
    steps: Iterator[Iterate], result: Callable[[Iterate], Tensor], tolerance: float
) -> tuple[Tensor, list[int]]:
    """What `result` says of each image's own last iterate, and how many iterations each took."""
    start = next(steps)
    before, out = start.q, result(start)
    taken, moving = torch.zeros(2, len(before), dtype=torch.int64, device=before.device)
    moving = moving == 0
    for now in steps:
        out = torch.where(moving.view(-1, *(1,) * (out.dim() - 1)), result(now), out)
        taken += moving
        moving = moving & (largest_change(before, now.q) > tolerance)
        if not bool(moving.any()):
            break
        before = now.q
    return out, taken.tolist()


def check_inference(problem: Problem) -> None:
    """ValueError where a gradient is asked for, or where nobody may look at numbers, as a program is recorded."""
    tensors = [problem.scores, problem.kernel_weights, problem.compatibility]
    features = [gaussian.operator.features for gaussian in problem.filters]
    learns = any(tensor is not None and tensor.requires_grad for tensor in (*tensors, *features))
    if (torch.is_grad_enabled() and learns) or not readable(problem.scores.detach()):
        raise ValueError(FOR_INFERENCE)
