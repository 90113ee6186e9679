"""Which labels of an image take part: most of a data set's classes occur nowhere in it.

At every pixel i the labels D that are left out hold together at most a share `tolerance` of the best label's
probability, however many labels there are:

    sum_{l in D} p_i(l) <= tolerance * max_l p_i(l)

*The others.* Their run is the exact one of predictions p' that are 0 for D and p elsewhere, divided by their sum. These
are nowhere farther from p than `tolerance`, 1/2 sum_l |p_i(l) - p'_i(l)| = sum_D p_i(l): for any number of labels and
of iterations, any kernels, weights and solver. Iterations may enlarge that, as they do with any change of predictions.

*Those left out.* With Potts, weights w_m(l) >= 0, w the largest sum_m w_m(l), and normalisation "after", a message is
at most its label's largest marginal, and no other label is pushed below its probability:

    Q_i(l) <= p_i(l) exp(w x),  x the label's largest marginal before;  so x <- h exp(w x) at most, from its largest
    probability h <= tolerance on

That rises to the smaller root of x = h exp(w x), which is at most e h where w h <= 1 / e. So all of D together would
nowhere and after no number of iterations have come above ``e * tolerance``, as long as w <= 1 / (e * tolerance), which
is 367 for 1e-3; for the usual weights the root is about ``tolerance * exp(w * tolerance)``.
"""

import torch
from torch import Tensor


def occurring(scores: Tensor, tolerance: float, highest: Tensor | None = None) -> Tensor:
    """The numbers of the labels that take part, in order, (K,) int64; the two most probable ones always do.

    Args:
        scores: logits (B, L, *S); with `highest` probabilities.
        tolerance: see above; the most improbable labels go first, for as long as it allows.
        highest: (L,), the largest probability of each label.

    >>> probabilities = torch.tensor([0.9, 1e-5, 0.1, 1e-6]).view(1, 4, 1)
    >>> occurring(probabilities.log(), 1e-3).tolist()
    [0, 2]
    >>> occurring(torch.zeros(1, 2000, 1), 1e-3).numel()  # none is much less probable than the best
    2000
    """
    labels = scores.shape[1]
    if highest is not None and int((highest <= tolerance).sum()) == 0:  # all are here: no need to look at the pixels
        return torch.arange(labels, device=scores.device)
    best = scores.amax(dim=1)

    def odds(label: int) -> Tensor:
        """p(l) / max p, in (0, 1]"""
        return (scores[:, label] - best).exp_() if highest is None else scores[:, label] / best

    peaks = torch.stack([odds(label).amax() for label in range(labels)]) if highest is None else highest
    order = peaks.argsort()[: max(0, labels - 2)].tolist()
    few = int((peaks[order] <= tolerance).sum()) if order else 0
    left_out, sums = torch.zeros_like(best), []
    for label in order[:few]:
        left_out += odds(label)
        sums.append(left_out.amax())
    count = int((torch.stack(sums) <= tolerance).sum()) if sums else 0
    return torch.tensor(sorted({*range(labels)}.difference(order[:count])), device=scores.device)
