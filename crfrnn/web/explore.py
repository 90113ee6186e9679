"""A CRF on one photo again and again: every iteration of a run, other weights at once, other bandwidths soon."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crfrnn.filtering.gaussian_filter import GaussianFilter
from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.filtering.operator import Lattice
from crfrnn.inference.occurring import occurring
from crfrnn.inference.problem import IMPOSSIBLE
from crfrnn.inference.recurrence import trajectory
from crfrnn.layer import CRFRNN
from crfrnn.parameters import CRFParameters

LATTICES = 2  # kept for one photo: the present bandwidths, and those before
TOLERANCE = 1e-3  # what the labels that are left out may hold at a pixel, as in `refine`


@dataclass(frozen=True)
class Settings:
    """What can be moved on the page: a CRF with one bilateral and one spatial kernel, flat.

    theta_alpha and theta_gamma in pixels, theta_beta in 0..255 of colour; the weights are w_m, for a learned CRF the
    mean over its classes.
    """

    theta_alpha: float
    theta_beta: float
    bilateral_weight: float
    theta_gamma: float
    spatial_weight: float
    normalization: str = "after"
    iterations: int = 10

    @classmethod
    def of(cls, parameters: CRFParameters) -> "Settings":
        """ValueError where there are other kernels than one bilateral and one spatial, each with plain bandwidths.

        >>> Settings.of(CRFParameters.of_preset("pydensecrf")).theta_alpha
        80
        """
        kernels = {type(kernel): kernel for kernel in parameters.kernels}
        bilateral, spatial = kernels.get(Bilateral), kernels.get(Spatial)
        if len(parameters.kernels) != 2 or not isinstance(bilateral, Bilateral) or not isinstance(spatial, Spatial):
            names = ", ".join(type(kernel).__name__ for kernel in parameters.kernels)
            raise ValueError(f"kernels: expected one Bilateral and one Spatial, got {names}")
        alpha, beta, gamma = bilateral.theta_alpha, bilateral.theta_beta, spatial.theta_gamma
        if not (isinstance(alpha, int | float) and isinstance(beta, int | float) and isinstance(gamma, int | float)):
            raise ValueError(f"kernels: expected one bandwidth for all axes and channels, got {(alpha, beta, gamma)}")
        weights = float(bilateral.weight), float(spatial.weight)
        iterations = parameters.iterations if isinstance(parameters.iterations, int) else cls.iterations
        return cls(alpha, beta, weights[0], gamma, weights[1], parameters.normalization, iterations)

    def kernels(self) -> tuple[Bilateral, Spatial]:
        bilateral = Bilateral(self.theta_alpha, self.theta_beta, self.bilateral_weight)
        return bilateral, Spatial(self.theta_gamma, self.spatial_weight)

    def parameters(self, factor: float = 1.0, class_weights: Sequence[Sequence[float]] | None = None) -> CRFParameters:
        """The CRF, for a grid with `factor` times as many pixels along each axis."""
        kernels = tuple(kernel.scaled(factor) for kernel in self.kernels())
        return CRFParameters(kernels, self.normalization, iterations=self.iterations, class_weights=class_weights)


@dataclass(frozen=True)
class Settling:
    """One run: what every iteration came to. Labels count as in the logits; t = 0 is the unary alone."""

    labels: np.ndarray  # (T + 1, H, W) uint8, or uint16 above 256 labels
    change: np.ndarray  # (T,), the share of its probability that the mean pixel gave to other labels in iteration t
    marginals: np.ndarray  # (K, H, W) float32 after the last iteration, of the labels in `occurring`
    occurring: np.ndarray  # (K,) those labels; all others hold next to nothing everywhere, see `TOLERANCE`


class Exploration:
    """A photo and a unary term, prepared for runs with many settings.

    Args:
        photo: (H, W, 3) uint8.
        logits: (1, L, h, w) of any size, scaled to the photo's, bilinearly.
        crf: a trained layer at the size of the logits: its weights and its compatibility keep their proportions,
            `Settings` scales them. Without it the CRF is a Potts model.

    Raises ValueError where the layer has other kernels than one bilateral and one spatial one.

    >>> explored = Exploration(np.zeros((6, 8, 3), np.uint8), torch.randn(1, 4, 6, 8))
    >>> explored.run(Settings.of(CRFParameters.of_preset("crfrnn"))).labels.shape
    (11, 6, 8)
    """

    def __init__(self, photo: np.ndarray, logits: Tensor, crf: CRFRNN | None = None):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
            raise ValueError(f"photo: expected (H, W, 3) uint8, got {photo.dtype} {photo.shape}")
        size = (photo.shape[0], photo.shape[1])
        self.photo = photo
        self.labels = logits.shape[1]
        whole = logits.detach().float()
        if tuple(whole.shape[2:]) != size:
            whole = F.interpolate(whole.clamp(min=IMPOSSIBLE), size=size, mode="bilinear")  # infinity times 0 is NaN
        self.occurring = occurring(whole, TOLERANCE).numpy()
        self.logits = whole if len(self.occurring) == self.labels else whole[:, self.occurring]
        self.learned: Settings | None = None
        self.class_weights: np.ndarray | None = (
            None  # (2, L), by which the learned kernels' weights differ among labels
        )
        if crf is not None:
            scale = math.hypot(*size) / math.hypot(logits.shape[2], logits.shape[3])
            self._learn(crf, crf.scaled(scale))
        self._lattices: OrderedDict[tuple, GaussianFilter] = OrderedDict()

    def _learn(self, crf: CRFRNN, scaled: CRFRNN) -> None:
        weights = crf.kernel_weights.detach()
        diagonal = weights.diagonal(dim1=1, dim2=2) if weights.dim() == 3 else weights
        means = diagonal.mean(dim=1).tolist()
        kernels = tuple(replace(k, weight=mean) for k, mean in zip(scaled.kernels, means, strict=True))  # type: ignore[type-var]
        self.learned = Settings.of(CRFParameters(kernels, crf.normalization, iterations=crf.eval_iterations))
        # in the order of Settings.kernels
        order = [next(m for m, k in enumerate(crf.kernels) if isinstance(k, kind)) for kind in (Bilateral, Spatial)]
        if diagonal.shape[1] > 1 and bool((diagonal >= 0).all()) and min(means) > 0:
            self.class_weights = (diagonal / diagonal.mean(dim=1, keepdim=True))[order].numpy()
        self._weights = weights[order][..., self.occurring] if weights.shape[-1] > 1 else weights[order]
        if weights.dim() == 3:
            self._weights = self._weights[:, self.occurring]
        self._compatibility = crf.compatibility.detach()[self.occurring][:, self.occurring]

    def run(self, settings: Settings, *, learned: bool = True) -> Settling:
        """T iterations with these settings, of the learned CRF where there is one and it is wanted.

        The lattice is built again only where a bandwidth or the normalization changed.
        """
        bilateral, spatial = settings.kernels()
        guide = torch.from_numpy(np.ascontiguousarray(np.moveaxis(self.photo, -1, 0))).unsqueeze(0)
        filters = [self._lattice(bilateral, settings.normalization, guide)]
        filters.append(spatial.prepare(guide, normalization=settings.normalization))
        weights, compatibility = self._parameters(settings, learned)
        numbers = self.occurring.astype(np.uint8 if self.labels <= 256 else np.uint16)
        labels, changes, before, last = [], [], None, self.logits
        for q in trajectory(self.logits, filters, weights, compatibility, settings.iterations):
            labels.append(numbers[q[0].max(dim=0).indices.numpy()])
            if before is not None:
                changes.append(float((q - before).abs().sum(dtype=torch.float64)) / 2 / labels[0].size)
            before = last = q
        return Settling(np.stack(labels), np.array(changes), last[0].contiguous().numpy(), self.occurring)

    def _lattice(self, bilateral: Bilateral, normalization: str, guide: Tensor) -> GaussianFilter:
        key = (bilateral.theta_alpha, bilateral.theta_beta, normalization)
        if key not in self._lattices:
            self._lattices[key] = bilateral.prepare(guide, normalization=normalization)
            while len(self._lattices) > LATTICES:
                self._lattices.popitem(last=False)
        self._lattices.move_to_end(key)
        return self._lattices[key]

    def _parameters(self, settings: Settings, learned: bool) -> tuple[Tensor, Tensor]:
        """Kernel weights and compatibility of the labels that occur."""
        wanted = torch.tensor([[settings.bilateral_weight], [settings.spatial_weight]])
        if self.learned is None or not learned:
            return wanted, 1 - torch.eye(len(self.occurring))
        trained = torch.tensor([[self.learned.bilateral_weight], [self.learned.spatial_weight]])
        scale = torch.where(trained == 0, torch.zeros_like(wanted), wanted / trained)
        return self._weights * scale.view(2, *(1,) * (self._weights.dim() - 1)), self._compatibility

    def forget(self) -> None:
        """Give back the memory of the lattices; the next run builds its own again."""
        self._lattices.clear()

    @property
    def nbytes(self) -> int:
        """Memory of the photo, the logits and the lattices."""
        return self.photo.nbytes + self.logits.nbytes + self.lattice_nbytes

    @property
    def lattice_nbytes(self) -> int:
        """Memory of the lattices, which can be given back."""
        gaussians = list(self._lattices.values())
        return sum(tensor.nbytes for gaussian in gaussians for tensor in _tensors_of(gaussian))


def _tensors_of(gaussian: GaussianFilter) -> Iterator[Tensor]:
    form = gaussian.operator.form
    yield from form.tensors if isinstance(form, Lattice) else ()
    yield from (scale for scale in (gaussian.before, gaussian.after) if scale is not None)
