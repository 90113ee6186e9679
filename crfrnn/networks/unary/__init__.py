"""Networks that give the unary term U: image in, logits out (section 5.2)."""

from collections.abc import Callable
from typing import Any

from torch import nn

from crfrnn.networks.unary.deeplab import DeepLabLargeFov
from crfrnn.networks.unary.efficientnet_lite0 import EfficientNetLite0
from crfrnn.networks.unary.fast_scnn import FastScnn
from crfrnn.networks.unary.fcn8s import Fcn8s
from crfrnn.networks.unary.huggingface import HuggingFace
from crfrnn.networks.unary.torchvision_models import Torchvision

UNARIES: dict[str, Callable[..., nn.Module]] = {
    "fast-scnn": FastScnn,
    "fcn8s": Fcn8s,
    "deeplab": DeepLabLargeFov,
    "efficientnet-lite0": EfficientNetLite0,
}
LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    "hf": HuggingFace,
    "torchvision": Torchvision,
}


def build_unary(name: str, num_classes: int | None, **options: Any) -> nn.Module:
    """A network by name: normalised image (B, 3, H, W) -> logits (B, L, H, W), any H and W.

    Args:
        name: ``fast-scnn``, ``fcn8s``, ``deeplab``, ``efficientnet-lite0``, ``hf:`` and a model on the Hugging Face hub
            or in a folder, or ``torchvision:`` and one of its segmentation models. A builder of your own that you put
            into `UNARIES` counts as well.
        num_classes: L, number of labels; None is for ``hf:`` alone and takes the model's own.
        options: further arguments of the network.

    Raises ValueError for a name that is not there, or options that the network does not have.

    >>> sum(parameter.numel() for parameter in build_unary("fast-scnn", num_classes=11).parameters())
    1136635
    """
    library, colon, model = name.partition(":")
    builder = LIBRARIES.get(library) if colon else UNARIES.get(name)
    if builder is None or (colon and not model):
        raise ValueError(f"unary: {name!r} is none of {', '.join(UNARIES)}, hf:NAME and torchvision:NAME")
    if num_classes is None and library != "hf":
        raise ValueError(f"num_classes: {name} needs to know how many")
    if num_classes is not None and (isinstance(num_classes, bool) or num_classes < 1):
        raise ValueError(f"num_classes: must be at least 1, got {num_classes}")
    try:
        return builder(num_classes, **({"model": model} if colon else {}), **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"unary: {name} has no such option ({str(error).split('() ')[-1]})") from None


def recipe_of(unary: nn.Module) -> dict[str, Any]:
    """The arguments of `build_unary` that build a network of the same shape again; empty where nobody knows them.

    Networks say it themselves, in an attribute ``recipe``.

    >>> recipe_of(build_unary("fast-scnn", num_classes=11))
    {'name': 'fast-scnn', 'num_classes': 11, 'dropout': 0.1}
    """
    recipe = getattr(unary, "recipe", None)
    return dict(recipe) if isinstance(recipe, dict) else {}
