"""What a stage lowers: the cross-entropy of the labelled pixels, and losses of dense CRFs over all of them."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from crfrnn.commands.train.options import LossConfig
from crfrnn.data.datasets import VOID
from crfrnn.losses import DenseCRFLoss, GatedCRFLoss


class StageLoss(nn.Module):
    """The sum that a `LossConfig` describes; `class_weights` (L,) or None are those of the cross-entropy."""

    class_weights: Tensor | None

    def __init__(self, config: LossConfig, class_weights: Tensor | None = None):
        super().__init__()
        self.config = config
        self.register_buffer("class_weights", class_weights, persistent=False)
        dense, gated = config.dense_crf, config.gated_crf
        if dense is not None:
            self.dense = DenseCRFLoss(dense.kernels, dense.weight, dense.scale, dense.normalization, VOID)
        if gated is not None:
            if not 0 < gated.scale <= 1:
                raise ValueError(f"loss.gated_crf.scale: must be above 0 and at most 1, got {gated.scale}")
            self.gated = GatedCRFLoss(gated.kernels, gated.weight, gated.radius)

    def forward(self, logits: Tensor, truth: Tensor, guide: Tensor) -> Tensor:
        """Logits (B, L, H, W), classes (B, H, W), void where there is no label, colours (B, 3, H, W) in 0..255 -> ()"""
        logits, loss = logits.float(), logits.new_zeros((), dtype=torch.float32)
        if self.config.cross_entropy:
            sure = truth != VOID
            pixels = sure.sum() if self.class_weights is None else self.class_weights[truth[sure]].sum()
            total = cross_entropy(logits, truth, self.class_weights, ignore_index=VOID, reduction="sum")
            loss = loss + self.config.cross_entropy * total / pixels.clamp(min=1)  # 0, not NaN, where all is void
        if self.config.dense_crf is not None:
            loss = loss + self.dense(logits, guide, labels=truth if self.config.dense_crf.gate else None, logits=True)
        if self.config.gated_crf is not None:
            probabilities, scale = logits.softmax(dim=1), self.config.gated_crf.scale
            if scale < 1:
                size = [max(1, int(length * scale)) for length in truth.shape[1:]]
                probabilities = interpolate(probabilities, size, mode="bilinear", align_corners=False)
            loss = loss + self.gated(probabilities, guide, destination=(truth == VOID).float())
        return loss
