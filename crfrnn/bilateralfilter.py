"""The compiled module `bilateralfilter` of dense-CRF losses, by its own names: change the import line, keep the code.

`from crfrnn.bilateralfilter import bilateralfilter, bilateralfilter_batch`; docs/scribbles.md has a line that makes
`import bilateralfilter` find it.

An image is H W 3, as planes of red, green and blue, each row by row: 3 H W numbers in 0..255. What is filtered has K
planes. The sums are those of the original, whose lattice has 0.7055 of the Gaussian's mass, the pixel itself included:
AS_i = 0.7055 sum_j exp(-|p_i - p_j|^2 / 2 sigma_xy^2 - |I_i - I_j|^2 / 2 sigma_rgb^2) S_j, up to what a lattice
differs from a Gaussian. Images of a batch are filtered side by side, by as many threads as torch has.

Source: Tang et al., "On regularized losses for weakly-supervised CNN segmentation", ECCV 2018, whose code came with it.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crfrnn.filtering.kernels import Bilateral
from crfrnn.filtering.permutohedral.stencil import classic_share
from crfrnn.pydensecrf import arguments

__all__ = ["bilateralfilter", "bilateralfilter_batch"]
COLOURS = 3


def bilateralfilter(image: Any, seg: Any, AS: Any, H: int, W: int, *K_and_sigmas: float) -> None:
    """One image: `bilateralfilter(image, seg, AS, H, W, sigma_rgb, sigma_xy)`, or with K after W.

    Args:
        image: 3 H W numbers, 0..255; any real dtype and shape with so many in this order.
        seg: K H W numbers.
        AS: where the sums go, K H W float32, in place.
        H, W: height and width in pixels.
        K_and_sigmas: K, which the original does not take but counts, where it is given; sigma_rgb in levels of colour,
            sigma_xy in pixels.

    Raises:
        ValueError: where the original wrote beyond its arrays or returned nonsense: other sizes than these, an AS that
            cannot be written into, NaN, sigmas that are no bandwidths.

    >>> AS = np.zeros(2 * 4 * 5, np.float32)
    >>> bilateralfilter(np.zeros(3 * 4 * 5), np.ones(2 * 4 * 5), AS, 4, 5, 15.0, 2.0)
    >>> bool((AS > 1).all())
    True
    """
    if len(K_and_sigmas) not in (2, 3):
        raise ValueError(f"bilateralfilter: expected (image, seg, AS, H, W, sigma_rgb, sigma_xy), got {K_and_sigmas}")
    *labels, sigma_rgb, sigma_xy = K_and_sigmas
    pixels = arguments.whole("H", H, 1) * arguments.whole("W", W, 1)
    K = labels[0] if labels else max(1, arguments.array("seg", seg).size // pixels)
    _filter("image", image, "seg", seg, AS, (1, K, H, W), sigma_rgb, sigma_xy)


def bilateralfilter_batch(
    images: Any, segs: Any, AS: Any, N: int, K: int, H: int, W: int, sigma_rgb: float, sigma_xy: float
) -> None:
    """N images of one size: 3 H W numbers each, K H W of segs, and as many of AS. Otherwise as `bilateralfilter`.

    >>> images, segs = np.zeros(2 * 3 * 4 * 5, np.float32), np.ones(2 * 6 * 4 * 5, np.float32)
    >>> AS = np.zeros_like(segs)
    >>> bilateralfilter_batch(images, segs, AS, 2, 6, 4, 5, 15.0, 2.0)
    """
    _filter("images", images, "segs", segs, AS, (N, K, H, W), sigma_rgb, sigma_xy)


def _filter(
    image_name: str, images: Any, seg_name: str, segs: Any, AS: Any, sizes: tuple, sigma_rgb: float, sigma_xy: float
) -> None:
    n, k, h, w = (arguments.whole(name, size, 1) for name, size in zip("NKHW", sizes, strict=True))
    guide = _numbers(image_name, images, (n, COLOURS, h, w))
    values = _numbers(seg_name, segs, (n, k, h, w))
    out = _writable(AS, (n, k, h, w))
    theta_alpha, theta_beta = (
        float(arguments.bandwidths(name, sigma, 1, "")[0])
        for name, sigma in (("sigma_xy", sigma_xy), ("sigma_rgb", sigma_rgb))
    )
    kernel = Bilateral(theta_alpha, theta_beta)
    with torch.no_grad():
        gaussian = kernel.prepare(torch.from_numpy(guide), normalization="none")
        out[...] = gaussian(torch.from_numpy(values)).numpy()
    out *= np.float32(classic_share(2 + COLOURS))


def _numbers(name: str, values: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """As float32 of this shape; a copy where the caller's cannot be written into, which torch warns of."""
    numbers = arguments.real(name, values)
    if numbers.size != np.prod(shape):
        raise ValueError(f"{name}: {numbers.size} numbers, expected {_product(shape)}; are N, K, H and W in order?")
    numbers = np.require(numbers, requirements=["C", "W"]).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name}: NaN or infinity; find where it comes from")
    return numbers


def _writable(AS: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The caller's own memory, in this shape."""
    out = AS.detach().numpy() if isinstance(AS, torch.Tensor) else AS
    if (
        not isinstance(out, np.ndarray)
        or out.dtype != np.float32
        or not (out.flags.c_contiguous and out.flags.writeable)
    ):
        what = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(AS).__name__
        raise ValueError(f"AS: the sums go into it, so it must be float32 in one piece, got {what}; use np.zeros_like")
    if out.size != np.prod(shape):
        raise ValueError(f"AS: {out.size} numbers, expected {_product(shape)}")
    return out.reshape(shape)


def _product(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))} = {np.prod(shape)}"
