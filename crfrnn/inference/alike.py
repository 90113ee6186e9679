"""Labels that nothing tells apart are one: a label map that was made into probabilities has many.

Where the g labels of a group have the same unary at every pixel and the same kernel weights, in the Potts model, they
have the same marginal q after every iteration. One label in their place has

    U' = U + log g        w'_m = w_m / g

and Q' = g q: the softmax's sum is the same, and the penalty that Potts takes off a label, w'_m K_m Q' = w_m K_m q, too.
What its messages to all labels together change is the same for each of them, and cancels in the softmax. So this is
exact, for any kernels and any number of iterations.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from crfrnn.inference.problem import Problem
from crfrnn.runtime.layout_gpu import readable

LOOKED_AT = 64  # pixels that tell most labels apart


class Merged(NamedTuple):
    """A problem of K labels in place of L."""

    problem: Problem
    group: Tensor  # (L,) the label that stands for each of them
    sizes: Tensor  # (L,) how many that one stands for

    def marginals(self, q: Tensor) -> Tensor:
        """(B, K, *S) -> (B, L, *S)."""
        return q[:, self.group].div_(self.sizes.view(-1, *(1,) * (q.dim() - 2)))


def merged(problem: Problem) -> Merged | None:
    """The problem with one label for each group, None where all labels differ, or where this is not looked for.

    That is on a GPU, where it would have to be waited for, and while a program is being recorded.

    >>> from crfrnn import Spatial
    >>> logits = torch.tensor([2.0, 0.0, 0.0, 0.0]).view(1, 4, 1, 1).expand(1, 4, 5, 6)
    >>> filters, weights, potts = [Spatial(2).prepare(logits)], torch.ones(1, 1), 1 - torch.eye(4)
    >>> merged(Problem(logits, filters, weights, potts)).group.tolist()
    [0, 1, 1, 1]
    """
    scores, weights, labels = problem.scores, problem.kernel_weights, problem.scores.shape[1]
    if labels < 3 or scores.device.type != "cpu" or not scores.numel() or not readable(scores) or weights.dim() != 2:
        return None
    if not torch.equal(problem.compatibility, 1 - torch.eye(labels, dtype=weights.dtype)):
        return None
    groups = _groups(scores, weights.expand(-1, labels))
    if len(groups) == labels:
        return None
    first = [group[0] for group in groups]
    sizes = torch.tensor([float(len(group)) for group in groups], dtype=weights.dtype)
    column = sizes.view(-1, *(1,) * (scores.dim() - 2))
    few = scores[:, first]
    few = few.clamp_(min=problem.floor).mul_(column) if problem.floor else few + column.log()
    weights = weights.expand(-1, labels)[:, first] / sizes
    small = Problem(few, problem.filters, weights, 1 - torch.eye(len(first)), problem.floor)
    group = torch.empty(labels, dtype=torch.int64)
    for number, members in enumerate(groups):
        group[members] = number
    return Merged(small, group, sizes[group])


def _groups(scores: Tensor, weights: Tensor) -> list[list[int]]:
    """The labels, those together that nothing tells apart; at least two groups."""
    step = max(1, scores[0, 0].numel() // LOOKED_AT)
    some = scores.flatten(2)[:, :, ::step].transpose(0, 1).flatten(1)
    groups: dict[bytes, list[list[int]]] = {}
    for label in range(scores.shape[1]):
        key = torch.cat([some[label].float(), weights[:, label].float()]).numpy().tobytes()
        alike = groups.setdefault(key, [])
        same = (one for one in alike if torch.equal(scores[:, label], scores[:, one[0]]))
        group = next(same, None)
        if group is None:
            alike.append([label])
        else:
            group.append(label)
    found = sorted(group for alike in groups.values() for group in alike)
    return found if len(found) > 1 else [found[0][:1], found[0][1:]]
