"""A guide in other units than theta_beta: the bilateral kernel sees a picture of one colour, and nothing fails.

It happens where a CRF that counts in 0..255 gets what a network gets: colours in 0..1, or normalised by their mean and
deviation.
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from crfrnn.runtime.layout_gpu import readable

NARROW = 0.5  # bandwidths: two colours so far apart are neighbours all the same, exp(-1/8)
NARROW_AROUND_ZERO = 2.0  # colours are not negative: normalised ones spread over four to five units
BLACK_AND_WHITE, WHITE = (0.005, 0.995), 255.0  # shares of a channel below them, and what white becomes
LARGEST = (
    5.0  # of a guide in 0..1, or normalised by mean and deviation; a dark or an overexposed crop has larger values
)

_warned: set[Any] = set()  # bandwidths that were warned of
_asked: set[Any] = set()  # bandwidths for which a GPU was asked, once: the host waits for its answer


def standardized(guide: Tensor) -> Tensor:
    """Intensities in which a preset's theta_beta counts: of each channel black, which 0.5 % are below, is 0 and white,
    which 0.5 % are above, 255. As a scan's background and its brightest voxels decide little, images of one kind become
    alike. float32.

    Args:
        guide: (B, C, *S). What lies beyond black or white by more than their distance becomes that.

    >>> standardized(torch.arange(-1000.0, 3001.0).view(1, 1, -1))[0, 0, [20, 2000, 3980]]
    tensor([  0.0000, 127.5000, 255.0000])
    """
    return stretched(guide.detach().float(), *black_and_white(guide))


def black_and_white(guide: Tensor) -> tuple[Tensor, Tensor]:
    """Of each channel of (B, C, *S), (B, C): the values that `BLACK_AND_WHITE` of it are below; where nearly all is
    one value, background, the lowest and the highest."""
    values = guide.detach().float().flatten(2)
    count = values.shape[2]
    black, white = (values.kthvalue(1 + round(share * (count - 1)), dim=2).values for share in BLACK_AND_WHITE)
    flat = white <= black
    return torch.where(flat, values.amin(dim=2), black), torch.where(flat, values.amax(dim=2), white)


def stretched(guide: Tensor, black: Tensor, white: Tensor) -> Tensor:
    """(B, C, *S) float32 with what `black_and_white` found as 0 and 255."""
    values = guide.flatten(2)
    span = (white - black).clamp(min=torch.finfo(torch.float32).tiny)
    scaled = WHITE * ((values - black.unsqueeze(2)) / span.unsqueeze(2))
    return scaled.clamp(-WHITE, 2 * WHITE).view(guide.shape)


def notice_other_units(guide: Tensor, colours: Tensor, theta_beta: Any) -> None:
    """Warn, once for each bandwidth, of a guide whose whole range is a fraction of it.

    Args:
        guide: (B, C, *S); whole numbers, in whatever dtype, are colours, and one colour alone is a plain picture:
            neither is judged.
        colours: the same over `theta_beta`.
        theta_beta: the bandwidth; tensors, which learn, count as one.

    On the CPU every guide is looked at, on a GPU one for each bandwidth; none while torch compiles, exports or traces.
    """
    if not readable(guide) or not guide.is_floating_point() or not guide.numel():
        return
    key = "learned" if isinstance(theta_beta, Tensor) else str(theta_beta)
    if key in _warned:
        return
    if guide.device.type != "cpu":
        if key in _asked:
            return
        _asked.add(key)
    low, high = torch.stack(colours.detach().aminmax()).tolist()
    if not 0 < high - low < (NARROW_AROUND_ZERO if low < 0 else NARROW):
        return
    low, high = torch.stack(guide.detach().aminmax()).tolist()
    if max(-low, high) > LARGEST or not bool(guide.detach().frac().any()):
        return
    _warned.add(key)
    theta = theta_beta.tolist() if isinstance(theta_beta, Tensor) else theta_beta
    warnings.warn(
        f"guide: its values {low:.3g}..{high:.3g} are all alike for theta_beta = {theta}, the bilateral kernel sees no"
        " edges; theta_beta counts in the units of the guide (the image): multiply colours in 0..1 by 255, take the"
        " picture from before it was normalised, or give the kernel a theta_beta in these units",
        stacklevel=4,
    )
