"""`DenseCRF` and `DenseCRF2D` as pydensecrf names them, computed by this package's filters and mean field.

Everywhere: L labels, N points, row-major over the pixels (point y * w + x); energies and marginals are (L, N)
float32, a unary energy is a negative log-probability. Kernels are prepared when they are added, once for all
calls of `inference` and `stepInference`. See docs/pydensecrf.md for what is the same and what is not.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, SupportsIndex

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from crfrnn.filtering.gaussian_filter import GaussianFilter, prepare
from crfrnn.filtering.permutohedral.stencil import classic_share
from crfrnn.inference.problem import IMPOSSIBLE, POSSIBLE
from crfrnn.inference.recurrence import marginals
from crfrnn.pydensecrf import arguments

Marginals = NDArray[np.float32]  # (L, N)


class NormalizationType(IntEnum):
    """What a kernel is divided by; see `crfrnn.filtering.gaussian_filter.GaussianFilter`."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


class KernelType(IntEnum):
    """How many parameters of a kernel would be learned. Inference is the same with each of them."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


NO_NORMALIZATION = NormalizationType.NO_NORMALIZATION
NORMALIZE_BEFORE = NormalizationType.NORMALIZE_BEFORE
NORMALIZE_AFTER = NormalizationType.NORMALIZE_AFTER
NORMALIZE_SYMMETRIC = NormalizationType.NORMALIZE_SYMMETRIC
CONST_KERNEL = KernelType.CONST_KERNEL
DIAG_KERNEL = KernelType.DIAG_KERNEL
FULL_KERNEL = KernelType.FULL_KERNEL

OUR_NORMALIZATION = {
    NO_NORMALIZATION: "none",
    NORMALIZE_BEFORE: "before",
    NORMALIZE_AFTER: "after",
    NORMALIZE_SYMMETRIC: "symmetric",
}
VANISHING = 1e-20  # below this a marginal counts as this in the logarithm of the entropy


class Unary:
    """A unary energy for `DenseCRF.setUnary`: made as `ConstUnary` or `LogisticUnary`."""

    energy: NDArray[np.float32]  # (L, N)


class ConstUnary(Unary):
    """The energy u (L, N) itself."""

    def __init__(self, u: ArrayLike):
        self.energy = arguments.matrix("u", u)


class LogisticUnary(Unary):
    """The energy L f of a linear model: L (labels, F) times features f (F, N)."""

    def __init__(self, L: ArrayLike, f: ArrayLike):
        self.energy = arguments.product("L", arguments.matrix("L", L), arguments.matrix("f", f))


@dataclass(frozen=True)
class _Pairwise:
    """One kernel. Its `penalty` is subtracted from the logits: (), (L,) for each label's own message, or (L, L)."""

    gaussian: GaussianFilter
    penalty: Tensor

    def of(self, q: Tensor) -> Tensor:
        """q (1, L, N) -> penalties (1, L, N)."""
        message = self.gaussian(q)
        if self.penalty.dim() == 2:
            return self.penalty @ message
        return self.penalty.view(-1, 1) * message


class DenseCRF:
    """A fully connected CRF over `nvar` points, each with one of `nlabels` labels.

    `tolerance`, of the class or of one object, is how exact `inference` must be: labels that are outvoted everywhere in
    the first iteration go on together, and where they hold next to nothing come back as 0
    (`inference/fused/vanishing_cpu.py` says how much that changes). With 0 every label takes part in every iteration.

    Raises ValueError, naming the argument, where sizes, numbers or types do not fit.
    """

    tolerance: float = 1e-3

    def __init__(self, nvar: int, nlabels: int):
        self._nvar = arguments.whole("nvar", nvar, 1)
        self._nlabels = arguments.whole("nlabels", nlabels, 1)
        self._logits: Tensor | None = None  # (1, L, N), the negative unary energy
        self._excludes = False  # whether labels are impossible somewhere
        self._pairwise: list[_Pairwise] = []

    @property
    def npixels(self) -> int:
        """N, the number of points."""
        return self._nvar

    @property
    def nlabels(self) -> int:
        """L, the number of labels."""
        return self._nlabels

    def setUnary(self, u: Unary) -> None:
        """Replace the unary energy by that of a `ConstUnary` or `LogisticUnary`."""
        if not isinstance(u, Unary) or not hasattr(u, "energy"):
            raise ValueError(
                f"u: expected a ConstUnary or LogisticUnary, got {type(u).__name__}; or use setUnaryEnergy"
            )
        self._set_energy(u.energy)

    def setUnaryEnergy(self, u: ArrayLike, f: ArrayLike | None = None) -> None:
        """Replace the unary energy by u (L, N), negative log-probabilities; with f (F, N), by u f for u (L, F).

        An infinite energy excludes a label; every point needs a label with a finite one.
        """
        energy = arguments.matrix("u", u)
        self._set_energy(energy if f is None else arguments.product("u", energy, arguments.matrix("f", f)))

    def _set_energy(self, energy: NDArray[np.float32]) -> None:
        if energy.shape != (self._nlabels, self._nvar):
            raise ValueError(
                f"u: expected shape (labels, points) = {(self._nlabels, self._nvar)}, got {energy.shape};"
                " labels come first: u.reshape(nlabels, -1)"
            )
        logits = torch.from_numpy(np.negative(energy, order="C"))
        lowest, highest = torch.aminmax(logits.amax(dim=0))
        if not (lowest > POSSIBLE and highest < -POSSIBLE):  # NaN passes through both
            raise ValueError("u: NaN, -infinity, or a point whose energies are all infinite; clip the probabilities")
        self._excludes = bool(logits.amin() < IMPOSSIBLE)
        self._logits = logits.clamp_(min=IMPOSSIBLE).unsqueeze(0)

    def addPairwiseEnergy(
        self,
        features: ArrayLike,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the kernel exp(-|f_i - f_j|^2 / 2) of features (d, N), each already divided by its bandwidth.

        Args:
            features: (d, N) real numbers.
            compat: a number w (Potts: equal labels attract by w), a vector (L,) of penalties v that each label pays
                for its own message (so that -w is Potts), or an (L, L) matrix of penalties, made symmetric.
            kernel: CONST_KERNEL, DIAG_KERNEL or FULL_KERNEL; without learning they are the same.
            normalization: NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER or NORMALIZE_SYMMETRIC.
        """
        array = arguments.matrix("features", features)
        if array.shape[1] != self._nvar or array.shape[0] == 0:
            raise ValueError(f"features: expected shape (dimensions, {self._nvar}), got {array.shape}")
        self._add(torch.tensor(array), compat, kernel, normalization, "features")

    def _add(self, features: Tensor, compat: Any, kernel: int, normalization: int, source: str) -> None:
        """features (d, N) float32; `source` names the arguments they were made from."""
        penalty = torch.tensor(arguments.penalties(compat, self._nlabels))
        arguments.choice("kernel", KernelType, kernel)
        kind = arguments.choice("normalization", NormalizationType, normalization)
        if not all(bound.isfinite() for bound in features.aminmax()):  # NaN passes through both
            raise ValueError(
                f"{source}: the features come out as NaN or infinite; clean them, or use larger bandwidths"
            )
        try:
            gaussian = prepare(features.unsqueeze(0), method="permutohedral", normalization=OUR_NORMALIZATION[kind])
        except ValueError as error:
            raise ValueError(f"{source}: {str(error).removeprefix('features: ')}") from error
        if kind is NO_NORMALIZATION:
            penalty = penalty * classic_share(features.shape[0])
        self._pairwise.append(_Pairwise(gaussian, penalty))

    def inference(self, niter: SupportsIndex) -> Marginals:
        """The marginals Q (L, N) float32 after `niter` mean-field iterations; softmax(-unary) after 0."""
        iterations = arguments.whole("niter", niter, 0)
        logits = self._unary_logits()
        with torch.no_grad():
            if not (iterations and self._pairwise):
                return torch.softmax(logits, dim=1)[0].numpy()
            filters = [term.gaussian for term in self._pairwise]
            q = marginals(logits, filters, *self._weights(), iterations, tolerance=self.tolerance)
            if self._excludes:
                q[logits == IMPOSSIBLE] = 0
            return q[0].numpy()

    def startInference(self) -> tuple[Marginals, NDArray[np.float32], NDArray[np.float32]]:
        """The marginals before the first iteration, and two scratch arrays that `stepInference` takes.

        Without a unary energy the marginals start as zeros, as pydensecrf's do.
        """
        if self._logits is None:
            q = np.zeros((self._nlabels, self._nvar), np.float32)
        else:
            q = torch.softmax(self._logits, dim=1)[0].numpy()
        return q, np.empty((0, 0), np.float32), np.empty((0, 0), np.float32)

    def stepInference(self, Q: Marginals, tmp1: object = None, tmp2: object = None) -> None:
        """One iteration, in place: Q (L, N) float32, from `startInference` or the caller's own."""
        del tmp1, tmp2
        q = self._marginals(Q)
        if not Q.flags.writeable:
            raise ValueError("Q: read-only, but it is updated in place; pass Q.copy()")
        with torch.no_grad():
            logits = self._unary_logits().clone()
            for term in self._pairwise:
                logits -= term.of(q)
            Q[...] = torch.softmax(logits, dim=1)[0].numpy()

    def klDivergence(self, Q: Marginals) -> float:
        """KL(Q || P) of marginals Q (L, N) up to the constant log Z, each pair counted from both sides."""
        q = self._marginals(Q)
        with torch.no_grad():
            total = _inner(q, q.clamp(min=VANISHING).log())
            if self._logits is not None:
                total -= _inner(q, self._logits)
            return total + sum(_inner(q, term.of(q)) for term in self._pairwise)

    def _unary_logits(self) -> Tensor:
        return torch.zeros(1, self._nlabels, self._nvar) if self._logits is None else self._logits

    def _marginals(self, Q: Marginals) -> Tensor:
        """The caller's Q as (1, L, N)."""
        shape = (self._nlabels, self._nvar)
        if not isinstance(Q, np.ndarray) or Q.dtype != np.float32 or Q.shape != shape:
            got = f"{Q.dtype} {Q.shape}" if isinstance(Q, np.ndarray) else type(Q).__name__
            raise ValueError(f"Q: expected a float32 array {shape}, as startInference returns it, got {got}")
        if not np.isfinite(Q).all():
            raise ValueError("Q: NaN or infinity; the marginals of a point are numbers from 0 to 1")
        return torch.tensor(Q).unsqueeze(0)

    def _weights(self) -> tuple[Tensor, Tensor]:
        """(kernel weights, compatibility) of `mean_field`: Potts where it does, as that is the fastest.

        A penalty -w on a label's own message differs from Potts, w on the sum of all others', only by a term that
        is the same for all labels of a point and cancels in the softmax.
        """
        labels, eye = self._nlabels, torch.eye(self._nlabels)
        penalties = [term.penalty for term in self._pairwise]
        rank = max(penalty.dim() for penalty in penalties)
        if rank == 2:
            matrices = [p if p.dim() == 2 else torch.diag(p.expand(labels)) for p in penalties]
            return torch.stack(matrices), eye
        return torch.stack([-p.expand(labels if rank else 1) for p in penalties]), 1 - eye


class DenseCRF2D(DenseCRF):
    """A fully connected CRF over an image of `w` by `h` pixels: width first."""

    def __init__(self, w: int, h: int, nlabels: int):
        self._w = arguments.whole("w", w, 1)
        self._h = arguments.whole("h", h, 1)
        super().__init__(self._w * self._h, nlabels)

    def addPairwiseGaussian(
        self, sxy: Any, compat: Any, kernel: int = DIAG_KERNEL, normalization: int = NORMALIZE_SYMMETRIC
    ) -> None:
        """Add the smoothness kernel on positions; `sxy` in pixels, one number or (x, y). Rest: addPairwiseEnergy."""
        self._add(self._positions(sxy), compat, kernel, normalization, "sxy")

    def addPairwiseBilateral(
        self,
        sxy: Any,
        srgb: Any,
        rgbim: ArrayLike,
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the appearance kernel on positions and colours.

        Args:
            sxy: bandwidth of positions in pixels, one number or (x, y).
            srgb: bandwidth of colours in grey values, one number or one for each channel.
            rgbim: (h, w, 3) uint8.
            compat, kernel, normalization: as in `addPairwiseEnergy`.
        """
        image = arguments.array("rgbim", rgbim)
        if image.shape != (self._h, self._w, 3):
            raise ValueError(
                f"rgbim: expected (h, w, 3) = {(self._h, self._w, 3)}, got {image.shape}; DenseCRF2D takes the width"
                " first, and other channels go through utils.create_pairwise_bilateral and addPairwiseEnergy"
            )
        if image.dtype != np.uint8:
            raise ValueError(
                f"rgbim: expected uint8 in 0..255, got {image.dtype}; convert with"
                " .astype(np.uint8), an image in 0..1 with (255 * image).astype(np.uint8)"
            )
        thetas = torch.tensor(arguments.bandwidths("srgb", srgb, 3, "the channels"))
        colours = torch.from_numpy(image.reshape(-1, 3).T.astype(np.float32)) / thetas.view(-1, 1)
        self._add(torch.cat([self._positions(sxy), colours]), compat, kernel, normalization, "sxy, srgb")

    def _positions(self, sxy: Any) -> Tensor:
        """(2, N): x / sx and y / sy."""
        sx, sy = torch.tensor(arguments.bandwidths("sxy", sxy, 2, "(x, y)"))
        x, y = torch.arange(self._w) / sx, torch.arange(self._h) / sy
        return torch.stack([x.repeat(self._h), y.repeat_interleave(self._w)])


def _inner(a: Tensor, b: Tensor) -> float:
    return (a * b).sum(dtype=torch.float64).item()
