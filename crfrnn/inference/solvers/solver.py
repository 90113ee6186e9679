"""What every solver is: a module that takes an iterate to the next one."""

from typing import Any

from torch import Tensor, nn

from crfrnn.inference.solvers.iterate import Iterate


class Solver(nn.Module):
    """One step of inference. The loop over T steps is `recurrence.py`'s; a learned step size is a parameter here.

    A solver of your own overrides `forward`, and `objective` if it descends something else than the free energy.
    """

    def forward(self, now: Iterate) -> Iterate:
        """The iterate after `now`; `now.updated` is Qu = U - P Q, filtered once and shared with the energies."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(now)")

    def objective(self, now: Iterate) -> Tensor:
        """What the steps are meant to decrease, (B,) float64: the mean-field free energy."""
        return now.free_energy

    def settings(self) -> dict[str, Any]:
        """The keyword arguments that make this solver again."""
        return {}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings().items())
