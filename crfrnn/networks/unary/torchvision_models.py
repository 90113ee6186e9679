"""Any segmentation model of torchvision as a unary, where torchvision works."""

import importlib
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from crfrnn.networks.unary.full_size import full_size


class Torchvision(nn.Module):
    """A model of ``torchvision.models.segmentation``, such as ``deeplabv3_resnet50`` or ``lraspp_mobilenet_v3_large``.

    Args:
        num_classes: L, number of labels.
        model: its name in torchvision.
        weights: of torchvision, such as "DEFAULT"; they have 21 classes.
        weights_backbone: of torchvision, for the backbone alone; fits any number of classes.
        options: further arguments of the model's builder.

    Shapes: normalised image (B, 3, H, W) -> logits (B, L, H, W), the output ``out``.
    """

    def __init__(
        self,
        num_classes: int,
        model: str,
        weights: str | None = None,
        weights_backbone: str | None = None,
        **options: Any,
    ):
        super().__init__()
        names = _torchvision().models
        try:
            self.model = names.get_model(
                model, weights=weights, weights_backbone=weights_backbone, num_classes=num_classes, **options
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"unary: torchvision cannot build {model}: {error}") from None
        # Pretrained models bring an auxiliary head; built again without weights, they need it for their state.
        if getattr(self.model, "aux_classifier", None) is not None:
            options["aux_loss"] = True
        self.recipe = {"name": f"torchvision:{model}", "num_classes": num_classes, **options}

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, H, W)."""
        return full_size(self.model(image), image.shape[2:])


def _torchvision() -> ModuleType:
    """torchvision's package; a ValueError with the remedy where it is missing, or does not fit the installed torch."""
    try:
        return importlib.import_module("torchvision")
    except ImportError:
        reason = "is not installed"
    except (RuntimeError, OSError) as error:
        reason = f"does not work with this torch ({str(error).splitlines()[0]})"
    raise ValueError(f"unary: torchvision {reason}; see pytorch.org for the build that fits") from None
