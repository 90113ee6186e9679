"""Bandwidths as parameters: their logarithms learn, so that whatever a step does they stay positive."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from crfrnn.filtering.kernels import Kernel, check_bandwidth


class LogBandwidths(nn.Module):
    """The natural logarithms of one kernel's bandwidths, as parameters of the bandwidths' names.

    Args:
        kernel: gives the initial values, and how many of each there are: one number, or one for each axis or channel.

    >>> from crfrnn import Bilateral
    >>> list(LogBandwidths(Bilateral(80, (13, 13, 20))).state_dict())
    ['theta_alpha', 'theta_beta']
    """

    def __init__(self, kernel: Any):
        super().__init__()
        if not hasattr(kernel, "bandwidths"):
            raise ValueError(
                f"kernels: {type(kernel).__name__} has no bandwidths that could be learned; it needs to be a dataclass"
                " whose attribute `bandwidths` has their names, as Bilateral is"
            )
        for name in kernel.bandwidths:
            check_bandwidth(name, getattr(kernel, name))
            theta = torch.as_tensor(getattr(kernel, name), dtype=torch.float64).detach()
            self.register_parameter(name, nn.Parameter(theta.log().to(torch.get_default_dtype())))

    def kernel(self, described: Any, numbers: bool) -> Kernel:
        """The kernel with the present bandwidths, as differentiable tensors or as plain numbers."""
        thetas = {name: self._bandwidth(name) for name in described.bandwidths}
        return replace(described, **{n: _number(theta) if numbers else theta for n, theta in thetas.items()})

    def _bandwidth(self, name: str) -> Tensor:
        logarithm = getattr(self, name)
        return (logarithm if logarithm.dtype == torch.float64 else logarithm.float()).exp()


def _number(theta: Tensor) -> float | tuple[float, ...]:
    number = theta.tolist()
    return tuple(number) if isinstance(number, list) else number
