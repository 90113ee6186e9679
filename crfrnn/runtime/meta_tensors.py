"""MONAI's MetaTensor, a tensor that knows its affine: taken as the tensor that it is, and given back as one.

MONAI need not be installed: a MetaTensor is known by what it can do.
"""

from typing import Any

import torch
from torch import Tensor


def is_meta_tensor(tensor: Any) -> bool:
    """Whether it is one."""
    return type(tensor) is not Tensor and isinstance(tensor, Tensor) and hasattr(tensor, "copy_meta_from")


def plain(tensor: Tensor) -> Tensor:
    """The same numbers without their metadata; other tensors as they are."""
    return tensor.as_subclass(Tensor) if is_meta_tensor(tensor) else tensor


def like(result: Tensor, given: Any) -> Tensor:
    """A result at the place of what was given: with its metadata where that is a MetaTensor."""
    return type(given)(result).copy_meta_from(given, copy_attr=False) if is_meta_tensor(given) else result


def spacing_of(image: Any) -> tuple[float, ...] | None:
    """Along each axis of a volume (C, *S), or of a batch of them; None of pictures, and of what does not know it.

    ValueError where the volumes of a batch have several.
    """
    if not is_meta_tensor(image) or image.dim() - image.is_batch < 4:
        return None
    known = image.pixdim  # of a batch a list
    spacings = torch.stack(list(known)) if isinstance(known, list | tuple) else torch.as_tensor(known).unsqueeze(0)
    if not torch.allclose(spacings, spacings[:1].expand_as(spacings), rtol=1e-3):
        raise ValueError(
            f"spacing: the volumes of a batch have several, {spacings.tolist()}; resample them, or say one"
        )
    return tuple(spacings[0].tolist())
