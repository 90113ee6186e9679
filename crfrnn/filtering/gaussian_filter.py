"""The Gaussian filter: a kernel prepared once for an image, then applied as often as wanted (section 4.2)."""

import math
import warnings
from copy import copy

import torch
from torch import Tensor

from crfrnn.filtering import methods
from crfrnn.filtering.operator import Operator
from crfrnn.filtering.permutohedral.stencil import check_accuracy
from crfrnn.runtime import layout_gpu
from crfrnn.runtime.transforms import check_tracer

NORMALIZATIONS = ("after", "symmetric", "before", "none")
POOR = 15  # features from which on the lattice changes some 10 % of the labels, see docs/accuracy.md
TINY = 1e-20  # keeps a division by a vanishing row sum finite


class GaussianFilter:
    """A normalised Gaussian kernel over the points of one batch of images.

    With n = K 1, the sum over each point's neighbours, itself included:

    ==============  ============================  =========================================
    normalization   filter(v)                     used by
    ==============  ============================  =========================================
    ``after``       (K v) / n                     CRF-RNN, DeepLab v1; the default
    ``symmetric``   n^-1/2 K (n^-1/2 v)           pydensecrf, DeepLab v2
    ``before``      K (v / n)
    ``none``        K v
    ==============  ============================  =========================================

    Made by ``kernel.prepare(guide)`` or `prepare`; call it with values (B, C, *S).
    """

    def __init__(
        self,
        operator: Operator,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        before: Tensor | None = None,
        after: Tensor | None = None,
        batch: int | None = None,
        device: torch.device | None = None,
    ):
        self.operator = operator
        self.batch = batch  # images that it was prepared for; None where it is the same for all
        self.shape = shape
        self.dtype = dtype
        self.device = device  # where it was prepared; None: filters that say nothing about it
        self.before = before  # (B, 1, N), multiplies the values; None: nothing to multiply
        self.after = after  # (B, 1, N), multiplies the sums
        self.left_out: Tensor | None = None  # (B or 1, 1, N), the filter's diagonal; see `without_self`
        folded = getattr(operator.form, "normalization", "none")  # in the bands of a grid
        self.normalized = before is not None or after is not None or folded != "none"

    def __call__(self, values: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S), in the dtype of `values` where that is a floating-point one."""
        return self._apply(values, self.before, self.after, transposed=False)

    def transpose(self, values: Tensor) -> Tensor:
        """The adjoint: <filter(x), y> = <x, filter.transpose(y)>. It is what the backward pass applies."""
        return self._apply(values, self.after, self.before, transposed=True)

    def without_self(self) -> "GaussianFilter":
        """The same filter without the term j = i, as the sum over j != i in the CRF's energy has it.

        Its diagonal is taken away, filter(v) - diagonal * v. The sum n that normalises keeps the term: weights then
        mean the same with and without it, and a point without neighbours gets the message 0 instead of 0 / 0.

        >>> from crfrnn import Features
        >>> alone = Features().prepare(torch.tensor([[[0.0, 50.0]]])).without_self()
        >>> alone(torch.ones(1, 1, 2)).tolist()
        [[[0.0, 0.0]]]
        """
        diagonal = self.operator.diagonal()
        if diagonal is None:
            raise ValueError(
                f"self_connection: {type(self.operator).__module__} cannot leave it out; prepare the kernel with"
                " implementation='reference'"
            )
        left_out = diagonal.to(self.dtype)
        for scale in (self.before, self.after):
            left_out = left_out if scale is None else left_out * scale
        other = copy(self)
        other.left_out = left_out
        return other

    def within(self, mask: Tensor, normalization: str) -> "GaussianFilter":
        """The kernel among the points of a mask alone, for a filter that was prepared without normalisation.

        The others send nothing, get 0, and are in no sum n: the filter of the points in the mask, had there been no
        others.

        Args:
            mask: (B, *S) bool, True where points count.
            normalization: as in `prepare`.

        >>> from crfrnn import Spatial
        >>> row = Spatial(2.0).prepare(torch.zeros(1, 1, 1, 4), normalization="none")
        >>> row = row.within(torch.tensor([[[True, True, False, True]]]), "after")
        >>> row(torch.tensor([[[[1.0, 1.0, 9.0, 1.0]]]])).round(decimals=3).flatten().tolist()
        [1.0, 1.0, 0.0, 1.0]
        """
        check_normalization(normalization)
        if self.normalized or self.left_out is not None:
            raise ValueError("normalization: a filter within a mask is made of one prepared with 'none'")
        if tuple(mask.shape[1:]) != self.shape:
            raise ValueError(f"mask: shape {tuple(mask.shape)}, expected (batch, {', '.join(map(str, self.shape))})")
        inside = mask.to(self.dtype).flatten(1).unsqueeze(1)
        scales = _scales(self.operator, inside, normalization)
        other = copy(self)
        other.before, other.after = (inside if scale is None else scale * inside for scale in scales)
        other.normalized = normalization != "none"
        return other

    def _apply(self, values: Tensor, before: Tensor | None, after: Tensor | None, transposed: bool) -> Tensor:
        if values.dim() < 3 or tuple(values.shape[2:]) != self.shape:
            raise ValueError(
                f"values: expected (batch, channels, {', '.join(map(str, self.shape))}) as the guide has it,"
                f" got {tuple(values.shape)}"
            )
        if self.batch not in (None, values.shape[0]):
            raise ValueError(f"values: a batch of {values.shape[0]}, but the guide has {self.batch} images")
        if self.device not in (None, values.device):
            raise ValueError(f"values: on {values.device}, but the guide was on {self.device}; move one of them")
        if values.is_complex():
            raise ValueError("values: complex numbers; filter the real and the imaginary part")
        with torch.autocast(values.device.type, enabled=False):
            inputs = values.to(self.dtype).flatten(2)
            flat = inputs if before is None else inputs * before
            flat = self.operator.apply(flat, transposed)
            if after is not None:
                flat = flat * after
            if self.left_out is not None:
                flat = flat - self.left_out.to(flat.device) * inputs
        return flat.reshape(values.shape).to(values.dtype if values.is_floating_point() else self.dtype)


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 where any tensor is float64, else float32: half precision and integers are computed in float32."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def prepare(
    features: Tensor,
    *,
    method: str = "permutohedral",
    normalization: str = "after",
    implementation: str | None = None,
    accuracy: int = 1,
    dtype: torch.dtype | None = None,
) -> GaussianFilter:
    """Prepare k(f_i, f_j) = exp(-|f_i - f_j|^2 / 2) for features (B, d, *S); arguments as in `gaussian_filter`.

    `implementation` asks for one row of `methods.IMPLEMENTATIONS` by name; by default the fastest that fits.
    """
    check_tracer()
    check_tensor("features", features)
    check_numbers("features", features.device)
    if features.dim() < 3 or features.shape[1] == 0:
        raise ValueError(f"features: expected (batch, dimensions, *sizes), got {tuple(features.shape)}")
    if method == "separable":
        raise ValueError("method: 'separable' filters positions on a grid; use Spatial(...).prepare(guide)")
    check_normalization(normalization)
    dtype = dtype or working_dtype(features)
    check_accuracy(accuracy)
    if method == "permutohedral" and features.shape[1] >= POOR:
        _warn_of_many(features.shape[1])
    knob = {"accuracy": accuracy} if method == "permutohedral" and accuracy != 1 else {}
    row = methods.choose(method, features.device, dtype, implementation, **knob)
    features = features.to(dtype)
    check = not row.checks_features and layout_gpu.readable(features) and features.numel()
    if check and not torch.stack(features.aminmax()).isfinite().all():
        raise ValueError("features: NaN or infinity; clean the guide or check the bandwidths")
    operator: Operator = row.load()(features, **knob)
    if features.requires_grad and torch.is_grad_enabled() and operator.features is None:
        raise ValueError(f"features: {row.name} gives them no gradient; detach them, or use implementation='reference'")
    before, after = _scales(operator, torch.ones_like(features[:, :1]).flatten(2), normalization)
    return GaussianFilter(operator, tuple(features.shape[2:]), dtype, before, after, features.shape[0], features.device)


def _warn_of_many(dimensions: int) -> None:
    if not torch.compiler.is_compiling():
        warnings.warn(
            f"features: {dimensions} dimensions are many for a lattice, from {POOR} on it may change a label in ten"
            " (docs/accuracy.md); reduce them to a few by a PCA, share them out among several kernels"
            " (channels=), or use method='exact'",
            stacklevel=3,
        )


def _scales(operator: Operator, ones: Tensor, normalization: str) -> tuple[Tensor | None, Tensor | None]:
    """What multiplies the values and the sums, (B, 1, N), from n = K 1, where 1 is 0 for points that do not count."""
    if normalization == "none":
        return None, None
    with torch.autocast(ones.device.type, enabled=False):
        norm = operator.apply(ones) + TINY
    factor = norm.rsqrt() if normalization == "symmetric" else 1 / norm
    return (None if normalization == "after" else factor), (None if normalization == "before" else factor)


def check_tensor(name: str, value: object) -> None:
    """ValueError for what is no tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: expected a tensor, got {type(value).__name__}")


def check_numbers(name: str, device: torch.device) -> None:
    """ValueError, about this argument, on the meta device."""
    if device.type == "meta":
        raise ValueError(
            f"{name}: on the meta device, which holds no numbers; torch.export.export, torch.compile and FakeTensorMode"
            " find shapes without them, and module.to_empty(device='cpu') gives a module made there its memory"
        )


def check_normalization(normalization: str) -> None:
    """ValueError where there is no such normalisation; see `GaussianFilter`."""
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization: {normalization!r} is none of {', '.join(NORMALIZATIONS)}")


def prepare_grid(
    shape: tuple[int, ...],
    thetas: tuple[float, ...] | Tensor,
    *,
    normalization: str = "after",
    implementation: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> GaussianFilter:
    """Prepare a Gaussian of the positions of a regular grid, one bandwidth in pixels for each axis of `shape`.

    Bandwidths in a tensor (D,) get a gradient.
    """
    check_tracer()
    check_normalization(normalization)
    device = device or torch.device("cpu")
    check_numbers("guide", device)
    if isinstance(thetas, Tensor) and device.type != "cpu":
        implementation = "reference"  # the others take numbers
    row = methods.choose("separable", device, dtype, implementation)
    if not isinstance(thetas, Tensor):
        return GaussianFilter(row.load()(shape, thetas, normalization), shape, dtype, device=device)
    operator = row.load()(shape, thetas, "none")  # the normalisation is not folded in, for autograd to see it
    ones = torch.ones(1, 1, math.prod(shape), dtype=dtype, device=device)
    return GaussianFilter(operator, shape, dtype, *_scales(operator, ones, normalization), device=device)


def gaussian_filter(
    values: Tensor,
    features: Tensor,
    *,
    method: str = "permutohedral",
    normalization: str = "after",
    accuracy: int = 1,
    implementation: str | None = None,
) -> Tensor:
    """Filter values by a Gaussian of features: out_i = sum_j exp(-|f_i - f_j|^2 / 2) v_j, normalised.

    Args:
        values: (B, C, *S), any number of channels; differentiable.
        features: (B, d, *S), already divided by their bandwidths; differentiable. S is a grid of 1 to 3 dimensions or a
            point set.
        method: ``permutohedral`` (O(N d); relative error of a few per cent, see docs/accuracy.md, more with many
            features: from 15 on a warning says so) or ``exact`` (O(N^2) time, O(N) memory).
        normalization: ``after``, ``symmetric``, ``before`` or ``none``; see `GaussianFilter`.
        accuracy: of the lattice. 1 is the classic one; 2 and 3 have a finer lattice and a wider blur, a third and a
            quarter of its error and take longer (docs/accuracy.md). `exact` needs none and ignores it.
        implementation: a name from `methods.IMPLEMENTATIONS`; by default the fastest one that fits the call.

    The term j = i is part of the sum, as in every released dense CRF.

    Raises:
        ValueError: features with NaN or infinity, features with larger coordinates than can be numbered,
            an accuracy that there is none of, or shapes that do not belong together. The message names the argument.

    Source: Adams, Baek and Davis 2010; equation (4.2) of Zheng et al. 2015.

    >>> values, features = torch.rand(1, 2, 8, 9), torch.rand(1, 5, 8, 9)
    >>> gaussian_filter(values, features).shape
    torch.Size([1, 2, 8, 9])
    """
    check_tensor("values", values)
    check_tensor("features", features)
    if values.device != features.device:
        raise ValueError(f"values: on {values.device}, but the features are on {features.device}; move one of them")
    if values.shape[:1] != features.shape[:1]:
        raise ValueError(f"values: batch of {values.shape[0]}, but features have a batch of {features.shape[0]}")
    dtype = working_dtype(values, features)
    # K 1 comes with K v, as one channel more; what cannot be filtered goes the other way, to be told so
    in_one_pass = normalization == "after" and values.shape[2:] == features.shape[2:] and not values.is_complex()
    prepared = prepare(
        features,
        method=method,
        normalization="none" if in_one_pass else normalization,
        implementation=implementation,
        accuracy=accuracy,
        dtype=dtype,
    )
    if not in_one_pass:
        return prepared(values)
    sums = prepared(torch.cat([values.to(dtype), torch.ones_like(values[:, :1], dtype=dtype)], dim=1))
    out = sums[:, :-1] * (1 / (sums[:, -1:] + TINY))
    return out.to(values.dtype) if values.is_floating_point() else out
