"""Any semantic-segmentation model of Hugging Face `transformers` as a unary."""

import importlib
import inspect
import json
from types import ModuleType
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from crfrnn.networks.hub import find_file
from crfrnn.networks.unary.full_size import full_size

SHORTEST_SIDE = 32  # pixels; the coarsest stride of these models, below which their poolings run empty


class HuggingFace(nn.Module):
    """A model that ``AutoModelForSemanticSegmentation`` knows: SegFormer, BEiT, DPT, MobileViT, UPerNet and others.

    Args:
        num_classes: L, number of labels. None takes the model's own; another number than the model's gives it a
            new, untrained head.
        model: a name on the hub, or a folder.
        config: the model's configuration as a dictionary: builds it without weights, and without the hub.
        bgr: whether the model wants blue first (its image processor's ``do_flip_channel_order``); None looks it up.

    Attributes: ``image_mean`` and ``image_std`` of the model's image processor, where it has one; ``class_names`` from
    the model's ``id2label``, where they say more than "LABEL_0".

    Shapes: image (B, 3, H, W), normalised by them -> logits (B, L, H, W). Where a model needs a
    certain size, the image is padded by its last rows and columns, and the logits cropped.
    """

    model: Any

    def __init__(
        self,
        num_classes: int | None,
        model: str,
        config: dict[str, Any] | None = None,
        bgr: bool | None = None,
    ):
        super().__init__()
        transformers = _transformers()
        self.image_mean: list[float] | None = None
        self.image_std: list[float] | None = None
        if config is None:
            self.model, processor = _load(transformers, model, num_classes)
            self._read(processor)
            bgr = bool(processor.get("do_flip_channel_order", False)) if bgr is None else bgr
        else:
            settings = transformers.AutoConfig.for_model(**config)
            if num_classes is not None and settings.num_labels != num_classes:
                raise ValueError(f"num_classes: {num_classes}, but the configuration has {settings.num_labels} labels")
            self.model = transformers.AutoModelForSemanticSegmentation.from_config(settings)
        self.bgr = bool(bgr)
        settings = self.model.config
        self.recipe = {
            "name": f"hf:{model}",
            "num_classes": settings.num_labels,
            "config": json.loads(settings.to_json_string()),
            "bgr": self.bgr,
        }
        names = [str(settings.id2label[label]) for label in range(settings.num_labels)]
        unnamed = [f"LABEL_{label}" for label in range(settings.num_labels)]
        self.class_names = None if names == unnamed else names
        accepted = inspect.signature(self.model.forward).parameters
        # Position embeddings made for one size are interpolated for others where the model can do so.
        self._options = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in accepted else {}

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, L, H, W)."""
        height, width = image.shape[2:]
        to_height, to_width = self._fitting(height, width)
        if (to_height, to_width) != (height, width):
            image = functional.pad(image, (0, to_width - width, 0, to_height - height), mode="replicate")
        output = self.model(pixel_values=image.flip(1) if self.bgr else image, **self._options)
        return full_size(output, (to_height, to_width))[:, :, :height, :width]

    def _fitting(self, height: int, width: int) -> tuple[int, int]:
        """The size, at least (height, width), that the model can work at."""
        patch = getattr(self.model.config, "patch_size", 1)
        step = patch if isinstance(patch, int) else 1
        height, width = (max(SHORTEST_SIDE, -(-size // step) * step) for size in (height, width))
        if self.model.config.model_type == "dpt":  # its neck takes the tokens for those of a square image
            height = width = max(height, width)
        return height, width

    def _read(self, processor: dict[str, Any]) -> None:
        if processor.get("do_normalize", False) and "image_mean" in processor and "image_std" in processor:
            self.image_mean, self.image_std = list(processor["image_mean"]), list(processor["image_std"])
        elif processor:
            self.image_mean, self.image_std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]


def _transformers() -> ModuleType:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise ValueError("unary: Hugging Face models need transformers: pip install 'crfrnn[models]'") from None


def _load(transformers: ModuleType, model: str, num_classes: int | None) -> tuple[nn.Module, dict[str, Any]]:
    """The pretrained model, with a new head if it must have another number of classes, and its image processor."""
    find_file(model, "config.json")  # says in one line what is wrong with the name or the connection
    options: dict[str, Any] = {}
    try:
        config = transformers.AutoConfig.from_pretrained(model)
        if num_classes is not None and config.num_labels != num_classes:
            config.num_labels = num_classes
            options = {"ignore_mismatched_sizes": True}
        loaded = transformers.AutoModelForSemanticSegmentation.from_pretrained(model, config=config, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"unary: {model} is no semantic-segmentation model of transformers ({reason})") from None
    try:
        processor = json.loads(find_file(model, "preprocessor_config.json").read_text(encoding="utf-8"))
    except ValueError:  # none was saved, or it is broken: ImageNet's normalisation is what nearly all of them use
        processor = {}
    return loaded, processor
