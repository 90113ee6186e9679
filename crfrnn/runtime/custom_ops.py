"""When the body of a custom op is called as the ordinary function that it is."""

import torch


def plain_call(*tensors: torch.Tensor) -> bool:
    """Whether the body of a custom op may be called as an ordinary function.

    It may where nothing is traced and no gradient is asked for. The first use of the op machinery loads torch's
    compiler, a second and 100 MB that somebody who only refines an image should not pay.
    """
    if torch.compiler.is_compiling() or torch.autograd.forward_ad._current_level >= 0:
        return False
    if any(type(t) not in (torch.Tensor, torch.nn.Parameter) for t in tensors):
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
