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
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.data.yaml_file import as_number, pyyaml, read_yaml
from crfrnn.filtering.gaussian_filter import GaussianFilter, check_normalization
from crfrnn.filtering.kernels import Bilateral, Kernel, Spatial, scaled
from crfrnn.inference.recurrence import as_iterations, check_solver
from crfrnn.inference.settled import Iterations
from crfrnn.inference.solvers import Solver, find_solver

NUMBERS = ("temperature", "iterations", "class_weights")
NAMES = ("preset", "kernel", "normalization", "solver", *NUMBERS, "standardize", "fitted")
EXTREME = 1e6  # temperatures beyond it, or below its inverse, leave nothing of the logits
DIGITS = 6  # significant ones in the file


@dataclass(frozen=True)
class CRFParameters:
    """Kernels with their weights, and what belongs to them.

    Args:
        kernels: at least one, such as `Bilateral` and `Spatial`; also as texts (`parse_kernel`), one alone without a
            list.
        normalization: of the kernels: ``after``, ``symmetric``, ``before`` or ``none``.
        temperature: divides the logits of the unary term; below 1 the network is believed more than it asks for.
        iterations: T, or "settled" (`crfrnn.refine`).
        class_weights: (M, L), rows or an array, what kernel m's weight is multiplied by for class l; None for the same
            for all classes.
        fitted: what a fit says of itself: on how many images, and what came of it. Nothing is done with it.
        solver: what an iteration does, an object of `crfrnn.solvers`; None is the paper's mean field.
        self_connection: whether a pixel hears itself, the term j = i.
        source: where published values come from.
        standardize: theta_beta counts in standardised intensities, see `crfrnn.refine`.

    Raises:
        ValueError: whatever none of this can be, with its name; a kernel checks itself.

    >>> CRFParameters.of_preset("deeplab-v2").iterations
    10
    """

    kernels: tuple[Kernel, ...]
    normalization: str = "after"
    temperature: float = 1.0
    iterations: Iterations = 10
    class_weights: Sequence[Sequence[float]] | None = None
    fitted: Mapping[str, Any] | None = field(default=None, compare=False)
    solver: Solver | None = None
    self_connection: bool = True
    source: str = field(default="", compare=False)
    standardize: bool = False

    def __post_init__(self):
        object.__setattr__(self, "kernels", as_kernels(self.kernels))
        check_normalization(self.normalization)
        if not isinstance(self.standardize, bool):
            raise ValueError(f"standardize: must be true or false, got {self.standardize!r}")
        number = isinstance(self.temperature, Real) and not isinstance(self.temperature, bool)
        if not (number and 1 / EXTREME <= self.temperature <= EXTREME):
            raise ValueError(
                f"temperature: must be positive, from {1 / EXTREME:g} to {EXTREME:g}, got {self.temperature!r}"
            )
        object.__setattr__(self, "iterations", as_iterations(self.iterations))  # it is frozen for others
        check_solver(self.solver)
        if isinstance(rows := self.class_weights, np.ndarray | Tensor):
            if rows.ndim != 2:
                raise ValueError(f"class_weights: shape {tuple(rows.shape)}, expected (kernels, classes)")
            object.__setattr__(self, "class_weights", tuple(map(tuple, rows.tolist())))
        if self.class_weights is not None:
            self.check_classes(len(self.class_weights[0]) if self.class_weights else 0)

    @classmethod
    def of_preset(
        cls,
        name: str,
        *,
        kernels: Sequence[Kernel | str] | None = None,
        normalization: str | None = None,
        solver: Solver | str | None = None,
        **changes: Any,
    ) -> "CRFParameters":
        """A preset's, with whatever is given in place of its own.

        Kernels and the solver may be texts, as on the command line; None leaves the preset's. `changes` are to further
        fields.

        >>> CRFParameters.of_preset("crfrnn", kernels=["spatial:3,1.5"], iterations=5).kernels
        (Spatial(theta_gamma=3.0, weight=1.5, method='separable'),)
        """
        if name not in list(PRESETS):  # of names of any type
            raise ValueError(f"preset: {name!r} is none of {', '.join(PRESETS)}")
        preset = PRESETS[name]
        return replace(
            preset,
            kernels=preset.kernels if kernels is None else as_kernels(kernels),
            normalization=preset.normalization if normalization is None else normalization,
            solver=find_solver(solver) if isinstance(solver, str) else solver,
            **changes,
        )

    def prepare(self, guide: Tensor, mask: Tensor | None = None) -> list[GaussianFilter]:
        """The M filters for a guide (B, C, *S), normalised, without the term j = i where it is left out.

        With a mask (B, *S), True where points count, among those alone.
        """
        normalization = self.normalization if mask is None else "none"
        filters = [kernel.prepare(guide, normalization=normalization) for kernel in self.kernels]
        if mask is not None:
            filters = [gaussian.within(mask, self.normalization) for gaussian in filters]
        return filters if self.self_connection else [gaussian.without_self() for gaussian in filters]

    def scaled(self, factor: float | Sequence[float]) -> "CRFParameters":
        """The same with kernels for a grid with `factor` times as many pixels along each axis, or this one and that."""
        return replace(self, kernels=scaled(self.kernels, factor))

    def kernel_weights(self, labels: int | None = None) -> Tensor:
        """w, (M, 1) where it is the same for all classes, else (M, L); ValueError where L is another than `labels`."""
        weights = torch.tensor([[float(kernel.weight)] for kernel in self.kernels])
        if self.class_weights is None:
            return weights
        if labels is not None:
            self.check_classes(labels)
        return weights * torch.tensor(self.class_weights)

    def check_classes(self, labels: int) -> None:
        """ValueError where `class_weights` are not a row for each kernel with a number of at least 0 for each class."""
        rows = self.class_weights or ()
        if len(rows) != len(self.kernels):
            raise ValueError(f"class_weights: {len(rows)} rows, but there are {len(self.kernels)} kernels")
        for row in rows:
            if len(row) != labels:
                raise ValueError(f"class_weights: {len(row)} numbers in a row, but there are {labels} classes")
            for weight in row:
                if not (isinstance(weight, Real) and 0 <= weight < math.inf):
                    raise ValueError(f"class_weights: must be at least 0 and finite, got {weight!r}")

    @property
    def num_classes(self) -> int | None:
        """L where the parameters know it."""
        return len(self.class_weights[0]) if self.class_weights else None

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `crfrnn.refine`."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("fitted", "source")}

    def as_yaml(self) -> str:
        """The file's text; ValueError for what the file has no name for."""
        if self.solver is not None or not self.self_connection:
            raise ValueError("solver, self_connection: cannot be written to a file")
        content: dict[str, Any] = {
            "kernel": [kernel_text(kernel) for kernel in self.kernels],
            "normalization": self.normalization,
            "temperature": _rounded(self.temperature),
            "iterations": self.iterations,
        }
        if self.class_weights is not None:
            content["class_weights"] = [[_rounded(weight) for weight in row] for row in self.class_weights]
        if self.standardize:
            content["standardize"] = True
        if self.fitted is not None:
            content["fitted"] = dict(self.fitted)
        return pyyaml().safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "CRFParameters":
        """What `as_yaml` wrote, or somebody by hand; a ValueError of one line where the file says something else.

        Values are what ``crfrnn refine --config`` takes them for. Only ``kernel`` or ``preset`` must be there.
        """
        content = read_yaml(path)
        try:
            for name in content:
                if name not in NAMES:
                    raise ValueError(f"{name}: is none of {', '.join(NAMES)}")
            content |= {name: as_number(content[name]) for name in NUMBERS if name in content}
            if content.get("class_weights") is not None:
                content["class_weights"] = _table(content["class_weights"])
            texts, preset = content.pop("kernel", None), content.pop("preset", None)
            if not texts:
                if preset is None:
                    raise ValueError("kernel: give at least one")
                return cls.of_preset(str(preset), **content)
            if not isinstance(texts, list):
                raise ValueError(f"kernel: a list is expected, got {texts!r}")
            kernels = [parse_kernel(str(text)) for text in texts]
            return cls.of_preset(str(preset or DEFAULT), kernels=kernels, source="", **content)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None


def as_kernels(kernels: Any) -> tuple[Kernel, ...]:
    """Kernels as callers give them, objects or texts, several or one alone, as a tuple; ValueError for all else.

    >>> as_kernels("spatial:3,1.5") == as_kernels([Spatial(3, weight=1.5)])
    True
    """
    alone = isinstance(kernels, str) or hasattr(kernels, "prepare") or not isinstance(kernels, Iterable)
    several = tuple(map(_as_kernel, (kernels,) if alone else kernels))
    if not several:
        raise ValueError("kernels: give at least one")
    return several


def _as_kernel(kernel: Any) -> Kernel:
    if isinstance(kernel, str):
        return parse_kernel(kernel, "kernels")
    if isinstance(kernel, type) or not (hasattr(kernel, "prepare") and hasattr(kernel, "weight")):
        shown = reprlib.repr(kernel)
        raise ValueError(f"kernels: expected kernels, such as [Bilateral(80, 13), Spatial(3)], got {shown}")
    return kernel


DEFAULT = "present"  # of the presets

# The first is weak enough for the networks of today (docs/voc2012.md). The others are published kernels and weights,
# under the names by which people know them. Each was tuned for the networks of its time: on a present network's outputs
# a strong one loses accuracy. Compare on a few labelled images before a whole data set is refined.
PRESETS: dict[str, CRFParameters] = {
    "present": CRFParameters(
        kernels=(Bilateral(30, 5, weight=1.5), Spatial(1.5, weight=1)),
        normalization="after",
        source="chosen here on the outputs of ESPNetv2 (Pascal VOC 2012) and CGNet (CamVid)",
    ),
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


def parse_kernel(text: str, name: str = "kernel") -> Kernel:
    """A kernel from ``bilateral:THETA_ALPHA,THETA_BETA[,WEIGHT]`` or ``spatial:THETA_GAMMA[,WEIGHT]``.

    theta_alpha and theta_gamma count in pixels, theta_beta in the image's units (0..255). Without a weight it is
    the kernel's default, 5 or 3. `name` is that of the argument or option, for its ValueErrors.

    >>> parse_kernel("bilateral:80,13,10")
    Bilateral(theta_alpha=80.0, theta_beta=13.0, weight=10.0, method='permutohedral', accuracy=1, channels=None)
    """
    kind, _, numbers = text.partition(":")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    kernel, fewest = {"bilateral": (Bilateral, 2), "spatial": (Spatial, 1)}.get(kind, (None, 0))
    if kernel is None or len(values) not in (fewest, fewest + 1):
        raise ValueError(
            f"{name}: {text!r} is neither bilateral:THETA_ALPHA,THETA_BETA,WEIGHT (such as bilateral:80,13,10)"
            " nor spatial:THETA_GAMMA,WEIGHT (such as spatial:3,3)"
        )
    if not all(0 < value < math.inf for value in values):
        raise ValueError(f"{name}: {text!r} has a number that is not positive and finite")
    return kernel(*values)


def _table(rows: Any) -> tuple[tuple[float, ...], ...]:
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError("class_weights: a list of numbers for each kernel is expected")
    return tuple(map(tuple, rows))


def kernel_text(kernel: Kernel) -> str:
    """What `parse_kernel` reads."""
    if isinstance(kernel, Bilateral):
        kind, numbers = "bilateral", (kernel.theta_alpha, kernel.theta_beta, kernel.weight)
    elif isinstance(kernel, Spatial):
        kind, numbers = "spatial", (kernel.theta_gamma, kernel.weight)
    else:
        raise ValueError(f"kernel: a {type(kernel).__name__} cannot be written to a file")
    if getattr(kernel, "channels", None) is not None:
        raise ValueError("kernel: its channels cannot be written to a file")
    if any(isinstance(number, tuple | list) for number in numbers):
        raise ValueError("kernel: a bandwidth for each axis or channel cannot be written to a file")
    return f"{kind}:{','.join(f'{number:.{DIGITS}g}' for number in numbers)}"


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
