"""`GatedCRFLoss`: the same energy within a window, from source to destination pixels."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from crfrnn.filtering.kernels import Bilateral, Kernel
from crfrnn.losses import arguments
from crfrnn.losses.known_gradient import KnownGradient
from crfrnn.parameters import as_kernels

PUBLISHED = Bilateral(6, 25.5, weight=1)  # for images in 0..255


class GatedCRFLoss(nn.Module):
    """What a destination pixel pays for its neighbours in a window, itself left out.

    sum_i d_i sum_j s_j k_ij (1 - <S_i, S_j>) / sum_i d_i, for j != i with |i - j| <= `radius` along each axis.

    Args:
        kernels: each has ``features``, as `Bilateral` (image and position) and `Spatial` (position) do; a kernel's
            ``weight`` is its w_m. The default is the published ``{weight: 1, xy: 6, rgb: 0.1}``, for images in 0..255;
            for images in 0..1 it is ``Bilateral(6, 0.1, weight=1)``.
        weight: of the whole.
        radius: of the window, in pixels of the probabilities: 5 is a window of 11 x 11. One number, or one for each
            axis, (y, x) or (z, y, x).

    Shapes: probabilities (B, L, *S) and guide (B, C, *T) in the units of ``theta_beta`` -> (). T may be larger than S,
    whose grid it is that counts: guide and masks are averaged to it, and then a mask is 1 where it is 1 throughout.
    Where no pixel is in a mask the loss is 0, as is its gradient. No gradient reaches the guide.

    Value and gradient come from one pass over half of the window, (2 radius + 1)^D / 2 steps, in the memory of a few
    copies of the probabilities. Pixels beyond the edge are nowhere in the sum (in the published code, without masks,
    they are: a constant).

    >>> from crfrnn import Spatial
    >>> loss = GatedCRFLoss(kernels=[Bilateral(6, 25.5, weight=0.9), Spatial(6, weight=0.1)], radius=2)
    >>> probabilities, guide = torch.rand(2, 5, 12, 16).softmax(dim=1), torch.rand(2, 3, 24, 32) * 255
    >>> loss(probabilities, guide, source=torch.ones(2, 24, 32)).shape
    torch.Size([])
    """

    def __init__(
        self,
        kernels: Sequence[Kernel | str] | Kernel | str = PUBLISHED,
        weight: float = 0.1,
        radius: int | Sequence[int] = 5,
    ):
        super().__init__()
        self.kernels, self.weight, self.radius = as_kernels(kernels), arguments.weight(weight), radius
        for kernel in self.kernels:
            if not hasattr(kernel, "features"):
                raise ValueError(f"kernels: {type(kernel).__name__} needs a method features(guide), as Bilateral has")
        if not all(isinstance(r, int) and r >= 0 for r in (radius if isinstance(radius, Sequence) else [radius])):
            raise ValueError(f"radius: expected whole pixels, such as 5, got {radius!r}")

    def forward(
        self,
        probabilities: Tensor,
        guide: Tensor,
        source: Tensor | None = None,
        destination: Tensor | None = None,
        *,
        logits: bool = False,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            probabilities: (B, L, *S), sums over L of 1; with `logits` what the softmax makes them of.
            guide: (B, C, *T).
            source: s (B, *T), 1 for pixels that others hear, such as those of the photograph in a padded picture.
            destination: d (B, *T), 1 for pixels that hear, such as those without a label.

        Raises:
            ValueError: shapes and devices that do not belong together; on the CPU also probabilities that are none.
        """
        s = arguments.probabilities(probabilities, logits)
        arguments.check_range("probabilities", s)
        guide = arguments.guide("guide", guide, s, same_size=False)
        sizes = tuple(s.shape[2:])
        masks = arguments.mask("source", source, guide), arguments.mask("destination", destination, guide)
        sources, destinations = (None if m is None else (_averaged(m, sizes) >= 1).to(s.dtype) for m in masks)
        with torch.no_grad(), torch.autocast(s.device.type, enabled=False):
            kernels: tuple[Any, ...] = self.kernels  # with `features`, which the protocol does not know
            features = [kernel.features(_averaged(guide, sizes)) for kernel in kernels]
            value, gradient = self._windowed(s.detach(), features, sources, destinations)
        value = KnownGradient.apply(s, value.to(s.dtype), gradient, 1.0)
        counting = sources if destinations is None else destinations
        return self.weight * value / (max(1, s[:, 0].numel()) if counting is None else counting.sum().clamp(min=1))

    def _windowed(
        self, s: Tensor, features: list[Tensor], sources: Tensor | None, destinations: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The sum and its gradient, from each pair once: k_ij (d_i s_j + d_j s_i) (1 - <S_i, S_j>)."""
        gradient, most = torch.zeros_like(s), s.new_zeros((), dtype=torch.float64)

        def part(mask: Tensor | None, where: tuple) -> Tensor | float:
            return 1.0 if mask is None else mask[where]

        for here, there in _pairs(tuple(s.shape[2:]), self.radius):
            k = s.new_zeros(())
            for kernel, f in zip(self.kernels, features, strict=True):
                k = k + kernel.weight * (-0.5 * (f[here] - f[there]).square().sum(dim=1, keepdim=True)).exp()
            to_here = part(destinations, here) * part(sources, there)
            k = k * (to_here + part(destinations, there) * part(sources, here))
            most += k.sum(dtype=torch.float64)
            gradient[here].addcmul_(k, s[there], value=-1)
            gradient[there].addcmul_(k, s[here], value=-1)
        return most + 0.5 * (s * gradient).sum(), gradient

    def extra_repr(self) -> str:
        return f"kernels={self.kernels}, weight={self.weight}, radius={self.radius}"


def _pairs(sizes: tuple[int, ...], radius: int | Sequence[int]) -> Iterator[tuple[tuple, tuple]]:
    """Where a tensor (B, C, *sizes) has the first and the second pixels of pairs: each pair of a window once.

    >>> [(here[1], there[1]) for here, there in _pairs((9,), 2)]
    [(slice(0, 8, None), slice(1, 9, None)), (slice(0, 7, None), slice(2, 9, None))]
    """
    radii = (radius,) * len(sizes) if isinstance(radius, int) else tuple(radius)
    if len(radii) != len(sizes):
        raise ValueError(f"radius: {len(radii)} numbers for {len(sizes)} axes; give one number, or one for each")
    for offset in itertools.product(*(range(-r, r + 1) for r in radii)):
        steps = list(zip(offset, sizes, strict=True))
        if offset > (0,) * len(sizes) and all(abs(step) < size for step, size in steps):
            here = (slice(max(0, -step), size - max(0, step)) for step, size in steps)
            there = (slice(max(0, step), size - max(0, -step)) for step, size in steps)
            yield (..., *here), (..., *there)


def _averaged(picture: Tensor, size: tuple[int, ...]) -> Tensor:
    return picture if tuple(picture.shape[2:]) == size else interpolate(picture, size, mode="area")
