"""Published sets of kernels and weights, under the names by which people know them.

A preset was tuned for the networks of its time. On a present network's outputs a strong one can lose accuracy:
compare on a few labelled images before a whole data set is refined.
"""

from dataclasses import dataclass

from crfrnn.filtering.kernels import Bilateral, Kernel, Spatial


@dataclass(frozen=True)
class Preset:
    """Kernels (bandwidths and weights), the way in which they are normalised, and where the values come from."""

    kernels: tuple[Kernel, ...]
    normalization: str
    source: str


PRESETS: dict[str, Preset] = {
    "crfrnn": Preset(
        kernels=(Bilateral(160, 3, weight=5), Spatial(3, weight=3)),
        normalization="after",
        source="the released model of Zheng et al., ICCV 2015",
    ),
    "pydensecrf": Preset(
        kernels=(Bilateral(80, 13, weight=10), Spatial(3, weight=3)),
        normalization="symmetric",
        source="the example of pydensecrf and of Kraehenbuehl and Koltun's own code",
    ),
    "deeplab-v1": Preset(
        kernels=(Bilateral(49, 5, weight=4), Spatial(3, weight=3)),
        normalization="after",
        source="DeepLab-LargeFOV, Chen et al., ICLR 2015",
    ),
    "deeplab-v2": Preset(
        kernels=(Bilateral(67, 3, weight=4), Spatial(1, weight=3)),
        normalization="symmetric",
        source="DeepLab v2 (ResNet-101), Chen et al., TPAMI 2018",
    ),
}


def find_preset(name: str) -> Preset:
    """The preset of that name, or a ValueError that lists the names there are.

    >>> find_preset("deeplab-v2").kernels[1]
    Spatial(theta_gamma=1, weight=3, method='separable')
    """
    if name not in PRESETS:
        raise ValueError(f"preset: {name!r} is none of {', '.join(PRESETS)}")
    return PRESETS[name]


def parse_kernel(text: str) -> Kernel:
    """A kernel from ``bilateral:THETA_ALPHA,THETA_BETA[,WEIGHT]`` or ``spatial:THETA_GAMMA[,WEIGHT]``.

    theta_alpha and theta_gamma count in pixels, theta_beta in the image's units (0..255). Without a weight it is
    the kernel's default, 5 or 3.

    >>> parse_kernel("bilateral:80,13,10")
    Bilateral(theta_alpha=80.0, theta_beta=13.0, weight=10.0, method='permutohedral', accuracy=1)
    """
    kind, _, numbers = text.partition(":")
    try:
        values = [float(number) for number in numbers.split(",")]
        if kind == "bilateral" and len(values) in (2, 3):
            kernel: Kernel = Bilateral(values[0], values[1], weight=values[2] if len(values) == 3 else Bilateral.weight)
        elif kind == "spatial" and len(values) in (1, 2):
            kernel = Spatial(values[0], weight=values[1] if len(values) == 2 else Spatial.weight)
        else:
            raise ValueError("another kind or another count of numbers")
    except ValueError:
        raise ValueError(
            f"kernel: {text!r} is neither bilateral:THETA_ALPHA,THETA_BETA,WEIGHT (such as bilateral:80,13,10)"
            " nor spatial:THETA_GAMMA,WEIGHT (such as spatial:3,3)"
        ) from None
    if not all(0 < value < float("inf") for value in values):
        raise ValueError(f"kernel: {text!r} has a number that is not positive and finite")
    return kernel
