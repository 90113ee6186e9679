"""Everything that is chosen about a dense CRF, as one object and as a small YAML file, and what others have chosen.

The file's names are the options of ``crfrnn refine``, so that ``--config`` reads it:

    kernel: [bilateral:49,5,1.8, spatial:3,1.1]
    normalization: after
    temperature: 0.6
    iterations: 10
    class_weights: [[1.0, 2.2], [1.0, 1.9]]
    fitted: {...}
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from crfrnn.data.yaml_file import pyyaml, read_yaml
from crfrnn.filtering.gaussian_filter import NORMALIZATIONS
from crfrnn.filtering.kernels import Bilateral, Kernel, Spatial

NAMES = ("kernel", "normalization", "temperature", "iterations", "class_weights", "fitted")
DIGITS = 6  # significant ones in the file


@dataclass(frozen=True)
class CRFParameters:
    """Kernels with their weights, and what belongs to them.

    Args:
        kernels: `Bilateral` and `Spatial` ones.
        normalization: of the kernels: ``after``, ``symmetric``, ``before`` or ``none``.
        temperature: divides the logits of the unary term; below 1 the network is believed more than it asks for.
        iterations: T.
        class_weights: (M, L), what kernel m's weight is multiplied by for class l; None for the same for all classes.
        fitted: what a fit says of itself: on how many images, and what came of it. Nothing is done with it.
        source: where published values come from.

    >>> CRFParameters.of_preset("deeplab-v2").iterations
    10
    """

    kernels: tuple[Kernel, ...]
    normalization: str = "after"
    temperature: float = 1.0
    iterations: int = 10
    class_weights: tuple[tuple[float, ...], ...] | None = None
    fitted: Mapping[str, Any] | None = field(default=None, compare=False)
    source: str = field(default="", compare=False)

    def __post_init__(self):
        if not self.kernels:
            raise ValueError("kernel: give at least one")
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization: {self.normalization!r} is none of {', '.join(NORMALIZATIONS)}")
        check_temperature(self.temperature)
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 0:
            raise ValueError(f"iterations: must be a whole number of at least 0, got {self.iterations!r}")
        if self.class_weights is not None:
            check_class_weights(self.class_weights, len(self.kernels))

    @classmethod
    def of_preset(cls, name: str) -> "CRFParameters":
        """Those of a preset, at temperature 1."""
        preset = find_preset(name)
        return cls(preset.kernels, preset.normalization)

    @property
    def num_classes(self) -> int | None:
        """L where the parameters know it."""
        return len(self.class_weights[0]) if self.class_weights else None

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `crfrnn.refine`."""
        names = ("kernels", "normalization", "temperature", "iterations", "class_weights")
        return {name: getattr(self, name) for name in names}

    def as_yaml(self) -> str:
        """The file's text."""
        content: dict[str, Any] = {
            "kernel": [_kernel_text(kernel) for kernel in self.kernels],
            "normalization": self.normalization,
            "temperature": _rounded(self.temperature),
            "iterations": self.iterations,
        }
        if self.class_weights is not None:
            content["class_weights"] = [[_rounded(weight) for weight in row] for row in self.class_weights]
        if self.fitted is not None:
            content["fitted"] = dict(self.fitted)
        return pyyaml().safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "CRFParameters":
        """What `as_yaml` wrote, or somebody by hand; a ValueError of one line where the file says something else.

        Only ``kernel`` must be there.
        """
        content = read_yaml(path)
        try:
            for name in content:
                if name not in NAMES:
                    raise ValueError(f"{name}: is none of {', '.join(NAMES)}")
            given = {name: value for name, value in content.items() if name != "kernel"}
            if given.get("class_weights") is not None:
                given["class_weights"] = _table(given["class_weights"])
            return cls(tuple(parse_kernel(str(text)) for text in content.get("kernel") or ()), **given)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None


def check_temperature(temperature: float) -> None:
    """ValueError where the logits cannot be divided by it."""
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not (number and 0 < temperature < math.inf):
        raise ValueError(f"temperature: must be positive and finite, got {temperature!r}")


def check_class_weights(class_weights: Sequence[Sequence[float]], kernels: int, labels: int | None = None) -> None:
    """ValueError where they are not a row for each kernel with a number of at least 0 for each class."""
    if len(class_weights) != kernels:
        raise ValueError(f"class_weights: {len(class_weights)} rows, but there are {kernels} kernels")
    labels = len(class_weights[0]) if labels is None else labels
    for row in class_weights:
        if len(row) != labels:
            raise ValueError(f"class_weights: {len(row)} numbers in a row, but there are {labels} classes")
        for weight in row:
            if not (isinstance(weight, Real) and 0 <= weight < math.inf):
                raise ValueError(f"class_weights: must be at least 0 and finite, got {weight!r}")


# Published kernels and weights, under the names by which people know them. Each was tuned for the networks of its time:
# on a present network's outputs a strong one can lose accuracy. Compare on a few labelled images before a whole data
# set is refined.
PRESETS: dict[str, CRFParameters] = {
    "crfrnn": CRFParameters(
        kernels=(Bilateral(160, 3, weight=5), Spatial(3, weight=3)),
        normalization="after",
        source="the released model of Zheng et al., ICCV 2015",
    ),
    "pydensecrf": CRFParameters(
        kernels=(Bilateral(80, 13, weight=10), Spatial(3, weight=3)),
        normalization="symmetric",
        source="the example of pydensecrf and of Kraehenbuehl and Koltun's own code",
    ),
    "deeplab-v1": CRFParameters(
        kernels=(Bilateral(49, 5, weight=4), Spatial(3, weight=3)),
        normalization="after",
        source="DeepLab-LargeFOV, Chen et al., ICLR 2015",
    ),
    "deeplab-v2": CRFParameters(
        kernels=(Bilateral(67, 3, weight=4), Spatial(1, weight=3)),
        normalization="symmetric",
        source="DeepLab v2 (ResNet-101), Chen et al., TPAMI 2018",
    ),
}


def find_preset(name: str) -> CRFParameters:
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


def _table(rows: Any) -> tuple[tuple[float, ...], ...]:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError("class_weights: a list of numbers for each kernel is expected")
    return tuple(map(tuple, rows))


def _kernel_text(kernel: Kernel) -> str:
    """What `parse_kernel` reads."""
    if isinstance(kernel, Bilateral):
        kind, numbers = "bilateral", (kernel.theta_alpha, kernel.theta_beta, kernel.weight)
    elif isinstance(kernel, Spatial):
        kind, numbers = "spatial", (kernel.theta_gamma, kernel.weight)
    else:
        raise ValueError(f"kernel: a {type(kernel).__name__} cannot be written to a file")
    if any(isinstance(number, tuple | list) for number in numbers):
        raise ValueError("kernel: a bandwidth for each axis or channel cannot be written to a file")
    return f"{kind}:{','.join(f'{number:.{DIGITS}g}' for number in numbers)}"


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
