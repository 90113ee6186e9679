"""`DenseEnergyLoss`: the loss as it was published."""

import torch
from torch import Tensor, nn

from crfrnn.filtering.kernels import Bilateral
from crfrnn.filtering.permutohedral.stencil import classic_share
from crfrnn.losses import arguments
from crfrnn.losses.at_scale import at_scale, gate_of
from crfrnn.losses.known_gradient import KnownGradient


class DenseEnergyLoss(nn.Module):
    """The loss as it was published, to the same numbers: its arguments, its scaling, its gate and its gradient.

    Its value is -weight S . (G A S) / B: not divided by pixels, and without the constant that makes it positive. A is
    the lattice of the compiled module `bilateralfilter`, which has 0.7055 of the Gaussian's mass. The gradient is
    -2 weight G A S / B: pixels hear what they pay, and not what others pay for them; `DenseCRFLoss` has the derivative
    of its value.

    Args:
        weight: 1e-7, or 2e-9 where there is no gate.
        sigma_rgb: 15, for images in 0..255.
        sigma_xy: 100, in pixels of the images as they come.
        scale_factor: 0.5.

    >>> loss = DenseEnergyLoss(1e-7, sigma_rgb=15, sigma_xy=100, scale_factor=0.5)
    >>> images, segmentations = torch.rand(2, 3, 12, 16) * 255, torch.rand(2, 5, 12, 16).softmax(dim=1)
    >>> loss(images, segmentations, torch.ones(2, 12, 16), torch.full((2, 1, 12, 16), 255)).shape
    torch.Size([])
    """

    def __init__(self, weight: float, sigma_rgb: float, sigma_xy: float, scale_factor: float):
        super().__init__()
        self.weight, self.scale_factor = arguments.weight(weight), arguments.scale("scale_factor", scale_factor)
        self.sigma_rgb, self.sigma_xy = sigma_rgb, sigma_xy
        self._kernel = Bilateral(sigma_xy * scale_factor, sigma_rgb)

    def forward(
        self, images: Tensor, segmentations: Tensor, ROIs: Tensor | None = None, seg_label: Tensor | None = None
    ) -> Tensor:
        """The loss of a batch.

        Args:
            images: (B, C, H, W).
            segmentations: probabilities (B, L, H, W).
            ROIs: (B, H, W), 1 where pixels count.
            seg_label: (B, 1, H, W), 255 where there is no label; without them nothing is gated, as in the first version
                of the published loss.
        """
        s = arguments.probabilities(segmentations, False, "segmentations")
        images = arguments.guide("images", images, s)
        masks = arguments.mask("ROIs", ROIs, s), arguments.pixels("seg_label", seg_label, s)
        s, images, roi, labels = at_scale(self.scale_factor, s, images, *masks)
        arguments.check_range("segmentations", s)
        with torch.no_grad(), torch.autocast(s.device.type, enabled=False):
            inside = s if roi is None else s * roi
            share = classic_share(images.dim() - 2 + images.shape[1])
            gated = self._kernel.prepare(images, normalization="none")(inside) * share
            if labels is not None:
                gated *= gate_of(s, roi, labels == arguments.VOID)
            value = -(inside * gated).sum()
            gated = gated if roi is None else gated * roi
        return self.weight / max(1, len(s)) * KnownGradient.apply(s, value, gated, -2.0)

    def extra_repr(self) -> str:
        sigmas = f"sigma_rgb={self.sigma_rgb}, sigma_xy={self.sigma_xy}"
        return f"{sigmas}, weight={self.weight}, scale_factor={self.scale_factor}"
