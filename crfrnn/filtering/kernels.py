"""The Gaussian kernels of a CRF: bandwidths in, features out (section 4.2).

    k_m(f_i, f_j) = exp(-|f_i - f_j|^2 / 2)

A kernel is a small immutable description; ``kernel.prepare(guide)`` does all the work that depends on the image.

A bandwidth is a number, or one for each axis or channel (a tuple, a list or an array), or a tensor of these, which then
gets a gradient. The guide gets one whenever it requires one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from operator import index
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter, check_tensor, prepare, prepare_grid, working_dtype
from crfrnn.filtering.guide_units import notice_other_units
from crfrnn.filtering.permutohedral.stencil import check_accuracy

Bandwidth = float | tuple[float, ...] | Tensor


class Kernel(Protocol):
    """What the layer needs of a kernel: an initial weight, and a filter for each guide."""

    @property
    def weight(self) -> float: ...

    def prepare(self, guide: Tensor, *, normalization: str = "after") -> GaussianFilter:
        """guide (B, C, *S) -> the filter for values (B, L, *S)."""
        ...

    def scaled(self, factor: float | Sequence[float]) -> "Kernel":
        """The same kernel for a grid with `factor` times as many pixels along each axis, or along this one and that."""
        ...


def check_bandwidth(name: str, theta: Bandwidth) -> None:
    """ValueError where it, or one of several, is not a positive and finite number."""
    if isinstance(theta, Tensor):
        if not bool((theta.isfinite() & (theta > 0)).all()):
            raise ValueError(f"{name}: a bandwidth must be positive and finite, got {theta.tolist()}")
        return
    several = tuple(theta) if isinstance(theta, tuple | list) else (theta,)
    if not several or not all(isinstance(t, Real) and not isinstance(t, bool) and 0 < t < math.inf for t in several):
        raise ValueError(f"{name}: a bandwidth must be positive and finite, got {theta!r}")


class _Checked:
    """What a kernel checks of itself when it is made: its mistakes are named where they are written."""

    bandwidths: ClassVar[tuple[str, ...]]
    methods: ClassVar[tuple[str, ...]]
    weight: float
    method: str
    accuracy: int = 1
    channels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if torch.compiler.is_compiling():  # a copy with learned bandwidths, of a kernel that was checked
            return
        for name in (*self.bandwidths, "weight"):
            if hasattr(theta := getattr(self, name), "__array__") and not isinstance(theta, Tensor):
                object.__setattr__(self, name, _numbers(theta))
        for name in self.bandwidths:
            check_bandwidth(name, getattr(self, name))
        alone = isinstance(self.weight, Real) or (isinstance(self.weight, Tensor) and self.weight.numel() == 1)
        if not alone or not math.isfinite(self.weight):
            raise ValueError(f"weight: must be a finite number, got {self.weight!r}")
        if self.method not in self.methods:
            raise ValueError(f"method: {self.method!r} is none of {', '.join(self.methods)}")
        check_accuracy(self.accuracy)
        if self.channels is not None:
            object.__setattr__(self, "channels", _check_channels(self.channels))


def _check_channels(channels: Any) -> tuple[int, ...]:
    """Python's own numbers; ValueError where they are not the numbers of some channels."""
    try:
        chosen = tuple(index(channel) for channel in channels)
    except TypeError:
        chosen = ()
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise ValueError(f"channels: expected different numbers from 0 on, such as (0, 1, 2), got {channels!r}")
    return chosen


def _chosen(guide: Tensor, channels: tuple[int, ...] | None) -> Tensor:
    """These channels of a guide (B, C, *S), or all."""
    _check_guide(guide)
    if channels is None:
        return guide
    if max(channels) >= guide.shape[1]:
        raise ValueError(f"channels: {max(channels)} is none of the guide's {guide.shape[1]} (the first is 0)")
    return guide[:, list(channels)]


def _numbers(array: Any) -> Any:
    """NumPy's numbers as Python's: a kernel compares, hashes and prints by its values, which no array does."""
    values = array.tolist()
    return tuple(values) if isinstance(values, list) else values


def _each(name: str, theta: Bandwidth, count: int, what: str) -> tuple[float, ...] | Tensor:
    """One bandwidth for each of `count` axes or channels; (count,) where they come in a tensor."""
    if isinstance(theta, Tensor):
        if theta.dim() and tuple(theta.shape) != (count,):
            raise ValueError(
                f"{name}: shape {tuple(theta.shape)}, expected one number or ({count},) for {count} {what}"
            )
        return theta.expand(count)
    thetas = tuple(float(t) for t in theta) if isinstance(theta, tuple | list) else (float(theta),) * count
    if len(thetas) != count:
        raise ValueError(f"{name}: {len(thetas)} bandwidths for {count} {what}")
    return thetas


def with_accuracy(kernels: Sequence[Kernel], accuracy: int | None) -> tuple[Kernel, ...]:
    """The same kernels with lattices of that accuracy; None leaves each its own. Kernels without a lattice stay.

    >>> with_accuracy([Bilateral(80, 13), Spatial(3)], 2)[0].accuracy
    2
    """
    if accuracy is None:
        return tuple(kernels)
    check_accuracy(accuracy)
    return tuple(replace(k, accuracy=accuracy) if isinstance(k, Bilateral | Features) else k for k in kernels)


def _times(name: str, theta: Bandwidth, factor: float | Sequence[float]) -> Bandwidth:
    """A bandwidth of positions times one factor, or times that of each axis."""
    if not isinstance(factor, Sequence):
        return tuple(t * factor for t in theta) if isinstance(theta, tuple | list) else theta * factor
    each = _each(name, theta, len(factor), "axes")
    if isinstance(each, Tensor):
        return each * each.new_tensor(factor)
    return tuple(t * f for t, f in zip(each, factor, strict=True))


def scaled(kernels: Sequence[Kernel], factor: float | Sequence[float]) -> tuple[Kernel, ...]:
    """All of them; ValueError where one cannot be scaled."""
    for kernel in kernels:
        if not hasattr(kernel, "scaled"):
            raise ValueError(f"kernels: {type(kernel).__name__} needs a method scaled(factor), as Bilateral has")
    return tuple(kernel.scaled(factor) for kernel in kernels)


def per_pixel(spacing: Sequence[float], axes: int) -> tuple[float, ...]:
    """Pixels to a unit along each of so many axes, the `factor` of `Kernel.scaled` that makes bandwidths count in it.

    `spacing` is how many of these units are from one pixel to the next along each axis, such as millimetres (z, y, x).

    >>> Spatial(3).scaled(per_pixel((2.0, 0.5, 0.5), axes=3)).theta_gamma
    (1.5, 6.0, 6.0)
    """
    steps = tuple(spacing) if isinstance(spacing, Iterable) else (spacing,)
    if len(steps) != axes or not all(isinstance(s, Real) and 0 < s < math.inf for s in steps):
        raise ValueError(f"spacing: expected a positive number for each of {axes} axes, got {spacing!r}")
    return tuple(1 / float(step) for step in steps)


def _scale(thetas: tuple[float, ...] | Tensor, dtype: torch.dtype, guide: Tensor) -> Tensor:
    """(C, 1, ...), to divide a guide (B, C, *S) by."""
    scale = torch.as_tensor(thetas, dtype=dtype, device=guide.device)
    return scale.view(-1, *(1,) * (guide.dim() - 2))


def _check_guide(guide: Tensor) -> None:
    check_tensor("guide", guide)
    if guide.dim() < 3:
        raise ValueError(f"guide: expected (batch, channels, *sizes), got {tuple(guide.shape)}")


def _positions(guide: Tensor, thetas: tuple[float, ...] | Tensor, dtype: torch.dtype) -> list[Tensor]:
    """D views (B, 1, *S) of pixel positions over bandwidths, the last axis first: x, then y, then z."""
    sizes = guide.shape[2:]
    each = thetas.to(dtype).unbind() if isinstance(thetas, Tensor) else thetas
    planes = []
    for axis, (size, theta) in enumerate(zip(sizes, each, strict=True)):
        scaled = torch.arange(size, dtype=dtype, device=guide.device) / theta
        planes.append(scaled.view(size, *(1,) * (len(sizes) - 1 - axis)).expand(guide.shape[0], 1, *sizes))
    return planes[::-1]


@dataclass(frozen=True)
class Bilateral(_Checked):
    """The appearance kernel: near in the image and alike in the guide.

    Args:
        theta_alpha: bandwidth of positions in pixels; one number, or one for each axis of the grid, (y, x). A tensor,
            () or (2,) here, gets a gradient, as all bandwidths do.
        theta_beta: bandwidth of the guide in its own units (RGB: 0..255); one number, or one for each channel.
        weight: initial value of the kernel's weight w_m.
        method: ``permutohedral`` or ``exact``.
        accuracy: of the lattice: 1, the classic one, to 3; see `gaussian_filter`.
        channels: of the guide, those that this kernel sees, such as (0, 1, 2); None is all of them.

    Source: the first term of equation (3), Kraehenbuehl and Koltun 2011; initial values of Zheng et al. 2015.

    >>> Bilateral(theta_alpha=80, theta_beta=13).features(torch.zeros(1, 3, 4, 6)).shape
    torch.Size([1, 5, 4, 6])
    """

    bandwidths: ClassVar[tuple[str, ...]] = ("theta_alpha", "theta_beta")
    methods: ClassVar[tuple[str, ...]] = ("permutohedral", "exact")

    theta_alpha: Bandwidth = 160.0
    theta_beta: Bandwidth = 3.0
    weight: float = 5.0
    method: str = "permutohedral"
    accuracy: int = 1
    channels: tuple[int, ...] | None = None

    def features(self, guide: Tensor) -> Tensor:
        """guide (B, C, *S) -> (B, D + C, *S) for a grid of D dimensions."""
        guide = _chosen(guide, self.channels)
        dtype = working_dtype(guide)
        positions = _each("theta_alpha", self.theta_alpha, guide.dim() - 2, "axes")
        colours = _each("theta_beta", self.theta_beta, guide.shape[1], "channels")
        planes = guide.to(dtype, memory_format=torch.contiguous_format)
        return torch.cat([*_positions(guide, positions, dtype), planes / _scale(colours, dtype, guide)], dim=1)

    def scaled(self, factor: float | Sequence[float]) -> "Bilateral":
        """The same kernel for a grid with `factor` times as many pixels along each axis, or along this one and that.

        >>> Bilateral(theta_alpha=30, theta_beta=10).scaled(2).theta_alpha
        60
        """
        return replace(self, theta_alpha=_times("theta_alpha", self.theta_alpha, factor))

    def prepare(
        self, guide: Tensor, *, normalization: str = "after", implementation: str | None = None
    ) -> GaussianFilter:
        """The filter for values (B, L, *S) over this guide (B, C, *S).

        Warns once where the guide is in other units than theta_beta (`guide_units.py`).
        """
        features = self.features(guide)
        notice_other_units(_chosen(guide, self.channels), features[:, guide.dim() - 2 :], self.theta_beta)
        return prepare(
            features,
            method=self.method,
            normalization=normalization,
            implementation=implementation,
            accuracy=self.accuracy,
        )


@dataclass(frozen=True)
class Spatial(_Checked):
    """The smoothness kernel: near in the image, whatever the guide says.

    Args:
        theta_gamma: bandwidth in pixels; one number, or one for each axis of the grid, (y, x).
        weight: initial value of the kernel's weight w_m.
        method: ``separable``, ``permutohedral`` or ``exact``.

    Source: the second term of equation (3), Kraehenbuehl and Koltun 2011.

    >>> Spatial(3).prepare(torch.zeros(1, 3, 4, 6))(torch.ones(1, 2, 4, 6)).mean().round().item()
    1.0
    """

    bandwidths: ClassVar[tuple[str, ...]] = ("theta_gamma",)
    methods: ClassVar[tuple[str, ...]] = ("separable", "permutohedral", "exact")

    theta_gamma: Bandwidth = 3.0
    weight: float = 3.0
    method: str = "separable"

    def features(self, guide: Tensor) -> Tensor:
        """guide (B, C, *S), only its size counts -> (B, D, *S)."""
        _check_guide(guide)
        thetas = _each("theta_gamma", self.theta_gamma, guide.dim() - 2, "axes")
        return torch.cat(_positions(guide, thetas, working_dtype(guide)), dim=1)

    def scaled(self, factor: float | Sequence[float]) -> "Spatial":
        """The same kernel for a grid with `factor` times as many pixels along each axis, or along this one and that."""
        return replace(self, theta_gamma=_times("theta_gamma", self.theta_gamma, factor))

    def prepare(
        self, guide: Tensor, *, normalization: str = "after", implementation: str | None = None
    ) -> GaussianFilter:
        """The filter for values (B, L, *S) over the grid of this guide (B, C, *S)."""
        if self.method != "separable":
            features = self.features(guide)
            return prepare(features, method=self.method, normalization=normalization, implementation=implementation)
        _check_guide(guide)
        thetas, dtype = _each("theta_gamma", self.theta_gamma, guide.dim() - 2, "axes"), working_dtype(guide)
        return prepare_grid(
            tuple(guide.shape[2:]),
            thetas.to(dtype) if isinstance(thetas, Tensor) else thetas,
            normalization=normalization,
            implementation=implementation,
            dtype=dtype,
            device=guide.device,
        )


@dataclass(frozen=True)
class Features(_Checked):
    """A kernel on the guide alone: the guide's channels are the features. For point sets and learned features.

    Args:
        theta: bandwidth in the guide's own units; one number, or one for each channel.
        weight: initial value of the kernel's weight w_m.
        method: ``permutohedral`` or ``exact``.
        accuracy: of the lattice: 1, the classic one, to 3; see `gaussian_filter`.
        channels: of the guide, those that this kernel sees, such as (0, 1, 2); None is all of them.

    >>> Features(theta=2.0).prepare(torch.rand(1, 3, 50))(torch.rand(1, 4, 50)).shape
    torch.Size([1, 4, 50])
    """

    bandwidths: ClassVar[tuple[str, ...]] = ("theta",)
    methods: ClassVar[tuple[str, ...]] = ("permutohedral", "exact")

    theta: Bandwidth = 1.0
    weight: float = 5.0
    method: str = "permutohedral"
    accuracy: int = 1
    channels: tuple[int, ...] | None = None

    def features(self, guide: Tensor) -> Tensor:
        """guide (B, C, *S) -> (B, C, *S), or as many channels as the kernel sees."""
        guide = _chosen(guide, self.channels)
        thetas = _each("theta", self.theta, guide.shape[1], "channels")
        dtype = working_dtype(guide)
        return guide.to(dtype) / _scale(thetas, dtype, guide)

    def scaled(self, factor: float | Sequence[float]) -> "Features":
        """The same kernel: no feature counts in pixels of the grid."""
        del factor
        return self

    def prepare(
        self, guide: Tensor, *, normalization: str = "after", implementation: str | None = None
    ) -> GaussianFilter:
        """The filter for values (B, L, *S) over this guide (B, C, *S)."""
        features = self.features(guide)
        return prepare(
            features,
            method=self.method,
            normalization=normalization,
            implementation=implementation,
            accuracy=self.accuracy,
        )
