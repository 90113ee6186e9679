"""Step sizes in (0, 1]: fixed, or learned and kept in (0, 1) by a sigmoid."""

import math

import torch
from torch import Tensor, nn


class StepSize(nn.Module):
    """Called, it returns its value: a number, or with `learned` a tensor with a gradient.

    >>> StepSize(0.25, learned=False)(), round(StepSize(0.25, learned=True)().item(), 6)
    (0.25, 0.25)
    """

    def __init__(self, initial: float, learned: bool):
        super().__init__()
        if isinstance(initial, bool) or not isinstance(initial, int | float) or not 0 < initial <= 1:
            raise ValueError(f"step: must be above 0 and at most 1, got {initial!r}")
        if learned and initial == 1:
            raise ValueError("step: a learned one begins below 1, such as 0.9, as a sigmoid never reaches 1")
        self.initial, self.learned = float(initial), learned
        if learned:
            self.logit = nn.Parameter(torch.tensor(math.log(initial / (1 - initial))))

    def forward(self) -> Tensor | float:
        return torch.sigmoid(self.logit) if self.learned else self.initial
