"""A segmentation network with a CRF-RNN behind it, trained as one (section 5.2)."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file, save_model
from torch import Tensor, nn

from crfrnn.data.files import writing
from crfrnn.layer import CRFRNN
from crfrnn.networks.hub import find_file
from crfrnn.networks.photo_size import bands, resized
from crfrnn.networks.saved import check_memory, check_numbers, crf_config, crf_of_config, fill, read_config
from crfrnn.networks.unary import build_unary, recipe_of
from crfrnn.networks.unary.full_size import full_size
from crfrnn.runtime.layout_gpu import readable

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BELOW_BLACK = 0.5  # a normalisation that takes black so far below 0 leaves no photo within 0..1
TIMES_WHITE = 3.0  # what augmentation does not reach
MOST_SIZE = 8192  # pixels of a photo's longer side
CONFIG, WEIGHTS = "config.json", "model.safetensors"


class SegmentationNetwork(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="crfrnn",
    pipeline_tag="image-segmentation",
    tags=["semantic-segmentation", "crf-rnn"],
    paper_url="https://arxiv.org/abs/1502.03240",
):
    """A network for the unary term, and a CRF-RNN that refines its logits along the edges of the image.

    Args:
        unary: normalised image (B, 3, H, W) -> logits (B, L, h, w), or a dictionary with them under ``out`` or
            ``logits``: one of `crfrnn.build_unary`, or any module of your own.
        crf: the layer; None leaves the plain network.
        separate: the CRF as a step of its own, as in DeepLab: no gradient goes through it to the unary.
        class_names: L names; by default the unary's ``class_names``, if it has any.
        palette: (L, 3) colours, 0..255, in which the classes are drawn.
        mean, std: of the normalisation, for colours from 0 to 1; by default the unary's own, or ImageNet's.
        size: the longer side, in pixels, of the pictures the network was trained on; `predict` scales to it.

    Shapes: normalised images (B, 3, H, W) -> logits (B, L, H, W), any H and W.

    The CRF's guide is the picture itself: the normalisation is undone and the colours are rounded to whole numbers,
    0..255, so that the CRF sees, to the last bit, what `crfrnn.refine` sees in the file. Images that cannot have been
    normalised (0..1, 0..255) are warned of, once.

    Source: Zheng et al., "Conditional Random Fields as Recurrent Neural Networks", ICCV 2015, figure 2.

    >>> network = SegmentationNetwork(build_unary("fast-scnn", num_classes=11), CRFRNN(num_classes=11))
    >>> network(torch.randn(2, 3, 45, 60)).shape
    torch.Size([2, 11, 45, 60])
    """

    mean: Tensor
    std: Tensor
    _units_are_known = False  # whether the first images were looked at

    def __init__(
        self,
        unary: nn.Module,
        crf: CRFRNN | None = None,
        separate: bool = False,
        class_names: Sequence[str] | None = None,
        palette: Sequence[Sequence[int]] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | None = None,
    ):
        super().__init__()
        if not isinstance(unary, nn.Module):
            raise ValueError(f"unary: expected a network (torch.nn.Module), got {type(unary).__name__}")
        if crf is not None and not isinstance(crf, CRFRNN):
            raise ValueError(f"crf: expected a CRFRNN or None, got {type(crf).__name__}")
        self.unary = unary
        self.crf = crf
        self.separate = separate
        named = class_names if class_names is not None else getattr(unary, "class_names", None)
        self.class_names = None if named is None else [str(name) for name in named]
        self.palette = None if palette is None else [[int(value) for value in colour] for colour in palette]
        self.size = _checked_size(size)
        mean = tuple(mean if mean is not None else getattr(unary, "image_mean", None) or IMAGENET_MEAN)
        std = tuple(std if std is not None else getattr(unary, "image_std", None) or IMAGENET_STD)
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise ValueError(f"std: expected a positive number for each of {len(mean)} channels, got {std}")
        # Not in the state dict: they are settings, and come with config.json.
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor([float(v) for v in values]).view(-1, 1, 1), persistent=False)
        self._check_classes()

    @property
    def num_classes(self) -> int | None:
        """L, as far as it is known before the first image."""
        if self.crf is not None:
            return self.crf.num_classes
        return recipe_of(self.unary).get("num_classes") or (len(self.class_names) if self.class_names else None)

    def forward(self, images: Tensor, iterations: int | None = None) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, L, H, W); `iterations` overrides the CRF's T once."""
        return self.refine(self.unary_logits(images), images, iterations)

    def unary_logits(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, L, H, W) of the network alone."""
        if images.dim() != 4 or images.shape[1] != len(self.mean) or not images.is_floating_point():
            raise ValueError(
                f"images: expected normalised ones, floats (B, {len(self.mean)}, H, W), got {images.dtype}"
                f" {tuple(images.shape)}; normalize(photos) makes them from 0..255"
            )
        return full_size(self.unary(images), images.shape[2:])

    def refine(self, logits: Tensor, images: Tensor, iterations: int | None = None) -> Tensor:
        """The CRF's part: logits (B, L, H, W) of the network, and its images, -> logits (B, L, H, W)."""
        if self.crf is None:
            return logits
        if self.separate:
            logits = logits.detach()
        self._notice_other_units(images)
        return self.crf(logits, self.guide(images), iterations)

    def _notice_other_units(self, images: Tensor) -> None:
        """Warn, at the first images (of more than one colour), where no normalisation of colours made them.

        The guide would have a fraction of a picture's contrast, or many times as much.
        """
        if self._units_are_known or not readable(images) or not images.numel():
            return
        low, high = torch.stack(images.detach().aminmax()).tolist()
        if not low < high:
            return
        self._units_are_known = True
        black, white = (bound.item() for bound in ((-self.mean / self.std).min(), ((1 - self.mean) / self.std).max()))
        if (low >= 0 and high <= 1 and black < -BELOW_BLACK) or high > TIMES_WHITE * white:
            warnings.warn(
                f"images: values {low:.3g}..{high:.3g} were not normalised by mean and deviation, which gives"
                f" {black:.3g}..{white:.3g}: the network and the CRF see other colours; normalize(photos) makes them"
                " from 0..255",
                stacklevel=3,
            )

    def normalize(self, photos: Tensor) -> Tensor:
        """Colours (B, 3, H, W) in 0..255, whole numbers or floats -> images as the network wants them."""
        return (photos.to(self.mean.dtype) / 255 - self.mean) / self.std

    @torch.no_grad()
    def guide(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> the colours 0..255 that they were made from."""
        images = images if images.dtype == torch.float64 else images.float()
        return ((images * self.std + self.mean) * 255).round()

    def predict(
        self, photo: np.ndarray, size: int | None = None, iterations: int | None = None, crf: bool = True
    ) -> np.ndarray:
        """The labels of a photo, in evaluation mode.

        The network sees the photo at the size it was trained on. The CRF works on the photo's own pixels, with its
        bandwidths of position grown as much as the picture (`photo_size.bands` says what it does with a very
        large one).

        Args:
            photo: (H, W, 3) uint8.
            size: scale the photo for the network so that its longer side has as many pixels; by default the
                network's ``size``, and if it has none, the photo is taken as it is.
            iterations: T, instead of the CRF's.
            crf: False gives the network alone.

        Returns (H, W) int64.
        """
        labels = np.empty(np.shape(photo)[:2], np.int64)
        for rows, q in self._bands(photo, size, iterations, crf):
            labels[rows] = q.argmax(0)
        return labels

    def probabilities(
        self, photo: np.ndarray, size: int | None = None, iterations: int | None = None, crf: bool = True
    ) -> np.ndarray:
        """As `predict`, but (L, H, W) float32 that sum to one at each pixel."""
        return np.concatenate([q for _, q in self._bands(photo, size, iterations, crf)], axis=1)

    def _bands(
        self, photo: np.ndarray, size: int | None, iterations: int | None, crf: bool
    ) -> Iterator[tuple[slice, np.ndarray]]:
        logits = self.photo_logits(photo, size)
        with _evaluating(self), torch.inference_mode():
            yield from bands(logits, self.crf if crf else None, photo, iterations)

    @torch.inference_mode()
    def photo_logits(self, photo: np.ndarray, size: int | None = None) -> Tensor:
        """Logits (1, L, h, w) float32 of the network alone, in evaluation mode, at the size at which it sees a photo.

        Args: `photo` and `size` are those of `predict`.
        """
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != len(self.mean) or photo.size == 0:
            raise ValueError(f"photo: expected (H, W, {len(self.mean)}) uint8, got {photo.dtype} {photo.shape}")
        size = _checked_size(size if size is not None else self.size)
        height, width = photo.shape[:2]
        if size is not None:
            factor = size / max(height, width)
            height, width = max(1, round(height * factor)), max(1, round(width * factor))
        colours = resized(photo, (height, width)).to(self.mean.device)
        dtype = next((parameter.dtype for parameter in self.unary.parameters()), torch.float32)
        with _evaluating(self):
            logits = self.unary_logits(self.normalize(colours).to(dtype)).float()
        if not torch.isfinite(logits.amax(dim=1)).all():
            raise ValueError("unary: the network's logits for this photo are NaN or infinite; are its weights sound?")
        return logits

    def config(self) -> dict[str, Any]:
        """Everything but the weights, ready for JSON."""
        unary = recipe_of(self.unary) or {"class": f"{type(self.unary).__module__}.{type(self.unary).__qualname__}"}
        return {
            "unary": unary,
            "crf": None if self.crf is None else crf_config(self.crf),
            "separate": self.separate,
            "class_names": self.class_names,
            "palette": self.palette,
            # Buffers are float32; seven digits are what they hold, and what was typed.
            "mean": [float(f"{value:.7g}") for value in self.mean.flatten().tolist()],
            "std": [float(f"{value:.7g}") for value in self.std.flatten().tolist()],
            "size": self.size,
        }

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write config.json, model.safetensors and, where there is none yet, a model card README.md.

        Args:
            save_directory: the folder; made if it is missing.
            options: ``push_to_hub``, ``repo_id``, ``model_card_kwargs`` and the others of `PyTorchModelHubMixin`.

        Raises ValueError before anything is written where a kernel or the unary's recipe cannot be saved.
        """
        self._config_text()
        return super().save_pretrained(save_directory, **options)

    def _config_text(self) -> str:
        try:
            return json.dumps(self.config(), indent=2) + "\n"
        except TypeError as error:
            raise ValueError(f"unary: its recipe cannot be written as JSON ({error})") from None

    def _save_pretrained(self, save_directory: Path) -> None:
        """What `save_pretrained` of the mixin calls for config and weights; each file is whole or absent."""
        with writing(save_directory / WEIGHTS) as file:
            mode = os.fstat(file.fileno()).st_mode
            save_model(self, file.name)
            os.chmod(file.name, mode)  # safetensors makes files that their owner alone may read
        with writing(save_directory / CONFIG) as file:
            file.write(self._config_text().encode())

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        unary: nn.Module | None = None,
        map_location: str | torch.device = "cpu",
        **download: Any,
    ) -> "SegmentationNetwork":
        """A network that `save_pretrained` or `push_to_hub` left, in evaluation mode.

        Args:
            pretrained_model_name_or_path: the folder, or the name on the hub.
            unary: the module, where it is one of your own: its weights are in the file, its code is not.
            map_location: the device.
            download: ``revision``, ``token``, ``cache_dir``, ``force_download``, ``local_files_only`` for the hub.

        Raises ValueError, one line, where a file is missing, broken, or does not fit.
        """
        source = pretrained_model_name_or_path
        config = read_config(find_file(source, CONFIG, **download))
        weights = find_file(source, WEIGHTS, **download)
        check_numbers(config, f"{source}: {CONFIG}")
        check_memory(lambda: cls._build(source, config, unary), weights)
        network = cls._build(source, config, unary)
        try:
            state = load_file(weights)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise ValueError(f"{weights}: is not readable as safetensors ({error})") from None
        fill(network, state, weights)
        return network.to(map_location).eval()

    @classmethod
    def _build(cls, source: str | Path, config: Mapping[str, Any], unary: nn.Module | None) -> "SegmentationNetwork":
        missing = [name for name in ("unary", "crf", "mean", "std") if name not in config]
        if missing:
            raise ValueError(f"{source}: {CONFIG} has no {' and no '.join(missing)}; was it saved by crfrnn?")
        try:
            settings = dict(config)
            recipe = dict(settings.pop("unary"))
            crf = settings.pop("crf")
            if unary is None and "class" in recipe:
                raise ValueError(f"unary: it was a module of your own, {recipe['class']}; pass it as unary=...")
            unary = unary if unary is not None else build_unary(**recipe)
            return cls(unary, None if crf is None else crf_of_config(crf), **settings)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        except Exception as error:  # what settings of any type and size make of a network, nobody can list
            reason = " ".join(str(error).split())
            raise ValueError(f"{source}: {CONFIG} has settings that do not fit ({reason})") from None

    def _check_classes(self) -> None:
        """Everything that knows the number of classes must agree on it."""
        counts = {
            "the CRF has": self.crf.num_classes if self.crf is not None else None,
            "the unary": recipe_of(self.unary).get("num_classes"),
            "class_names": len(self.class_names) if self.class_names is not None else None,
            "palette": len(self.palette) if self.palette is not None else None,
        }
        known = {name: count for name, count in counts.items() if count is not None}
        if len(set(known.values())) > 1:
            counted = ", ".join(f"{name} {count}" for name, count in known.items())
            raise ValueError(f"num_classes: must be the same everywhere, but {counted}")


def _checked_size(size: int | None) -> int | None:
    """A longer side in pixels; ValueError where it is none that a photo is worked on at."""
    if size is not None and not (isinstance(size, Integral) and 1 <= size <= MOST_SIZE):
        raise ValueError(f"size: must be at least 1 pixel and at most {MOST_SIZE}, got {size!r}")
    return size


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while, and afterwards each module as it was (one may be frozen while the rest trains)."""
    before = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
