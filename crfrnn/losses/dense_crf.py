"""`DenseCRFLoss`: the Potts energy of a dense CRF."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from crfrnn.filtering.gaussian_filter import check_normalization
from crfrnn.filtering.kernels import Bilateral, Kernel
from crfrnn.losses import arguments
from crfrnn.losses.at_scale import at_scale, gate_of
from crfrnn.losses.known_gradient import KnownGradient
from crfrnn.parameters import as_kernels

PUBLISHED = Bilateral(100, 15, weight=1)
SYMMETRIC = ("none", "symmetric")  # normalisations that leave k_ij = k_ji


class DenseCRFLoss(nn.Module):
    """The Potts energy of a fully connected CRF, for each pixel: sum_ij k_ij (1 - <S_i, S_j>) / N.

    Args:
        kernels: as of `CRFRNN`; a kernel's ``weight`` is its w_m. Bandwidths of position are in pixels of what the loss
            is given, whatever `scale`.
        weight: of the whole. As the sum is divided by the number of pixels, it means the same for images of every size.
            In the published code it does not: a weight w there is ``0.7055 * w * pixels`` here, with the pixels of one
            image at `scale`, and 0.7055 for what the published filter, in 5 dimensions, has of the Gaussian's mass. So
            1e-7 at 320 x 320 is 1.8e-3, and 2e-9 at 513 x 513 is 9.2e-5.
        scale: the pictures are worked on at this part of their size, 0 to 1: probabilities interpolated linearly,
            guide, region and labels by their nearest pixel, as published.
        normalization: of the kernels. With ``none`` a pixel's term grows with its neighbourhood, as published; with
            ``after`` or ``symmetric`` it lies within about 0..1, and weights are like those of a cross-entropy.
        void: in `labels`, the number of pixels without a label.

    Shapes: probabilities (B, L, *S) and guide (B, C, *S) in the units of ``theta_beta`` (0..255 for the default), S a
    grid of 1 to 3 dimensions -> (). Where no pixel is in the region it is 0, as is its gradient. No gradient reaches
    the guide.

    The value takes one filtering for each kernel. So does the gradient where there is a gate, or with ``after`` and
    ``before``; elsewhere k_ij = k_ji, and it takes none. (The lattice's k_ij and k_ji differ by 3 % in the mean, less
    than it differs from the Gaussian: docs/scribbles.md.)

    >>> loss = DenseCRFLoss(kernels="spatial:2,1", weight=1, scale=1, normalization="after")
    >>> half = torch.arange(40.0).gt(19).expand(1, 1, 10, 40).float()
    >>> plain, guide = torch.zeros_like(half), torch.zeros(1, 3, 10, 40)
    >>> [round(loss(torch.cat([p, 1 - p], dim=1), guide).item(), 3) for p in (plain, half)]
    [0.0, 0.039]
    """

    def __init__(
        self,
        kernels: Sequence[Kernel | str] | Kernel | str = PUBLISHED,
        weight: float = 1e-3,
        scale: float = 0.5,
        normalization: str = "none",
        void: int = arguments.VOID,
    ):
        super().__init__()
        check_normalization(normalization)
        self.kernels, self.normalization, self.void = as_kernels(kernels), normalization, void
        self.weight, self.scale = arguments.weight(weight), arguments.scale("scale", scale)
        self._scaled = self.kernels if scale == 1 else tuple(kernel.scaled(scale) for kernel in self.kernels)

    def forward(
        self,
        probabilities: Tensor,
        guide: Tensor,
        roi: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        logits: bool = False,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            probabilities: (B, L, *S), sums over L of 1; with `logits` what the softmax makes them of.
            guide: (B, C, *S).
            roi: (B, *S), 1 where pixels count, 0 where not, such as beyond the edge of a padded picture.
            labels: (B, *S), those that the network is trained on. They gate: what a pixel pays is multiplied by
                1 - max S where it has a label, so that labelled and sure pixels cost little and others are drawn to
                them. The gate itself passes no gradient.

        Raises:
            ValueError: shapes and devices that do not belong together; on the CPU also probabilities that are none.
        """
        s = arguments.probabilities(probabilities, logits)
        guide = arguments.guide("guide", guide, s)
        masks = arguments.mask("roi", roi, s), arguments.pixels("labels", labels, s)
        s, guide, roi, labels = at_scale(self.scale, s, guide, *masks)
        arguments.check_range("probabilities", s)
        gate = None if labels is None else gate_of(s, roi, labels == self.void)
        s = s if roi is None else s * roi
        with torch.autocast(s.device.type, enabled=False):
            filters = [kernel.prepare(guide, normalization=self.normalization) for kernel in self._scaled]

            def prices() -> Tensor:
                """What each pixel would pay for each label: sum_j k_ij S_j(l') over all other labels l'."""
                sums = [f(s).mul(kernel.weight) for kernel, f in zip(self.kernels, filters, strict=True)]
                ks = sum(sums[1:], sums[0])
                return ks.sum(dim=1, keepdim=True) - ks

            if gate is None and self.normalization in SYMMETRIC:
                with torch.no_grad():
                    price = prices()
                    value = (s * price).sum()
                value = KnownGradient.apply(s, value, price, 2.0)
            else:
                paid = s * prices()
                value = (paid if gate is None else gate * paid).sum()
        counted = max(1, s[:, 0].numel()) if roi is None else roi.sum().clamp(min=1)
        return self.weight * value / counted

    def extra_repr(self) -> str:
        normalization = f"normalization={self.normalization!r}"
        return f"kernels={self.kernels}, weight={self.weight}, scale={self.scale}, {normalization}"
