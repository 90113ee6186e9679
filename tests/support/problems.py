"""What the tests filter and infer: random inputs, photos with plausible predictions, small CRFs with known answers."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.segmentation
import skimage.transform
import torch
from PIL import Image
from torch import Tensor

from crfrnn import GaussianFilter
from crfrnn.filtering import methods
from crfrnn.filtering.gaussian_filter import prepare, prepare_grid
from crfrnn.inference.fused import choice
from crfrnn.inference.problem import Problem
from tests.support.places import DATA

NORMALIZATIONS = ("after", "symmetric", "before", "none")
PHOTOS = ("chelsea", "astronaut", "coffee", "rocket")
HEIGHT, WIDTH = 72, 96
THETA = 2.0  # bandwidth of the separable rows, in pixels

METHOD_OF = {row: method for method, rows in methods.IMPLEMENTATIONS.items() for row in rows}


def rows_of(*names: str) -> list:
    """The implementations of these methods, as parameters of a test."""
    return [pytest.param(row, id=f"{method}-{row.name}") for method in names for row in methods.IMPLEMENTATIONS[method]]


ROWS = rows_of(*methods.IMPLEMENTATIONS)  # every one there is: listing an implementation tests it


def fast_rows(method: str) -> list:
    """The implementations of a method that have a reference beside them, as parameters of a test."""
    return [pytest.param(row, id=row.name) for row in methods.IMPLEMENTATIONS[method] if row.name != "reference"]


def device_for(row: methods.Implementation, dtype: torch.dtype = torch.float32) -> torch.device:
    """A device of this machine that `row` runs on; skips the test where there is none."""
    reasons = []
    for name in ("cpu", "cuda"):
        if name == "cuda" and not torch.cuda.is_available():
            continue
        reason = row.refuses(torch.device(name), dtype)
        if reason is None:
            return torch.device(name)
        reasons.append(f"{name}: {reason}")
    pytest.skip(f"{row.name}: {'; '.join(reasons)}")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_values(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def random_features(
    batch: int,
    dimensions: int,
    shape: tuple[int, ...],
    *,
    spread: float = 2.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
) -> Tensor:
    """(batch, dimensions, *shape), uniform over `spread` bandwidths in each dimension: every point has neighbours."""
    unit = torch.rand(batch, dimensions, *shape, generator=generator(seed), dtype=torch.float64)
    return (spread * unit).to(dtype)


def potts(labels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return 1 - torch.eye(labels, dtype=dtype)


def weights_of(kind: str, kernels: int, labels: int, dtype: torch.dtype = torch.float32, seed: int = 2) -> Tensor:
    """Kernel weights of the kind that `CRFRNN` calls so, all different, around 1 (full: also off the diagonal)."""
    shape = {"scalar": (kernels, 1), "class": (kernels, labels), "full": (kernels, labels, labels)}[kind]
    noise = 0.3 * random_values(*shape, dtype=dtype, seed=seed)
    return noise + torch.eye(labels, dtype=dtype) if kind == "full" else noise + 1


def prepared(
    row: methods.Implementation,
    shape: tuple[int, ...],
    *,
    batch: int = 1,
    dimensions: int = 2,
    normalization: str = "after",
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
) -> GaussianFilter:
    """A filter of this implementation: of random features, or for `separable` of the grid's positions."""
    device = device_for(row, dtype)
    if METHOD_OF[row] == "separable":
        thetas = tuple(THETA + 0.5 * axis for axis in range(len(shape)))
        return prepare_grid(
            shape, thetas, normalization=normalization, implementation=row.name, dtype=dtype, device=device
        )
    features = random_features(batch, dimensions, shape, dtype=dtype, seed=seed).to(device)
    return prepare(features, method=METHOD_OF[row], normalization=normalization, implementation=row.name)


def refusal(logits: Tensor, filters: Sequence[GaussianFilter]) -> str | None:
    """Why no fused recurrence runs this problem; None where one does."""
    return choice.fused(Problem(logits, filters, torch.ones(len(filters), 1), potts(logits.shape[1])))


def computed_once(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Each call gets a tensor of its own: a test that asks it for gradients changes no other test's."""
    cached = functools.cache(compute)
    return functools.wraps(compute)(lambda *args, **settings: cached(*args, **settings).clone())


@computed_once
def photo(name: str, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """(1, 3, height, width) float32 of whole numbers 0..255, from scikit-image's own CC0 photos."""
    picture = getattr(skimage.data, name)()
    small = skimage.transform.resize(picture, (height, width), anti_aliasing=True, preserve_range=True)
    return torch.from_numpy(np.rint(np.asarray(small)).astype(np.float32)).permute(2, 0, 1).unsqueeze(0).contiguous()


@computed_once
def predictions(name: str, labels: int = 4, coarse: int = 4, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Logits (1, labels, height, width) as a network might give for this photo, from the colours alone.

    Connected regions of like colour (Felzenszwalb and Huttenlocher 2004); each of the largest is a label, the others
    join the label whose colour is nearest; then blurred, as a network's output at 1 / coarse of the resolution is.
    """
    picture = photo(name, height, width)[0].permute(1, 2, 0).numpy() / 255
    smallest = max(2, height * width // 100)
    regions = skimage.segmentation.felzenszwalb(picture, scale=100, sigma=0.8, min_size=smallest)
    sizes = np.bincount(regions.ravel())
    colours = np.stack([picture[regions == region].mean(axis=0) for region in range(sizes.size)])
    largest = np.argsort(-sizes)[:labels]
    distances = ((colours[:, None] - colours[None, largest]) ** 2).sum(axis=2)
    label_map = torch.from_numpy(distances.argmin(axis=1)[regions])
    sure = torch.nn.functional.one_hot(label_map, labels).permute(2, 0, 1).unsqueeze(0).float()
    pooled = torch.nn.functional.avg_pool2d(0.9 * sure + 0.1 / labels, coarse, ceil_mode=True)
    return torch.nn.functional.interpolate(pooled, size=(height, width), mode="bilinear").log()


def exact_after(features: Tensor, values: Tensor) -> Tensor:
    """The exact filter with normalisation "after", with its sums and their norm from one pass over N x N entries."""
    with_ones = torch.cat([values, torch.ones_like(values[:, :1])], dim=1)
    sums = prepare(features, method="exact", normalization="none")(with_ones)
    return sums[:, :-1] / sums[:, -1:]


def voc2012() -> Path:
    """The folder of Pascal VOC images with a network's outputs; skips where it is not beside the repository."""
    folder = DATA / "voc2012"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/voc2012 beside the repository")
    return folder


def voc2012_image(name: str) -> tuple[Tensor, Tensor]:
    """One image (1, 3, H, W) and the network's logits (1, 21, H, W), the longer side 96 pixels, the other 72."""
    picture = Image.open(voc2012() / "images" / f"{name}.jpg").convert("RGB")
    size = (WIDTH, HEIGHT) if picture.width >= picture.height else (HEIGHT, WIDTH)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    nll = np.load(voc2012() / "unaries" / f"{name}.npz")["nll16"].astype(np.float32)
    logits = torch.from_numpy(-nll / 16).unsqueeze(0)
    logits = torch.nn.functional.interpolate(logits, size=size[::-1], mode="bilinear", align_corners=True)
    return torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0).contiguous(), logits


@dataclass(frozen=True)
class KnownCRF:
    """A CRF of L = 2 labels under one kernel, whose answer fits on one line.

    logits (1, 2, N), guide (1, d, N), kernel weight w and Potts compatibility; `difference` is U(0) - U(1) after T
    iterations, for each point. With q = sigmoid(difference), Potts adds w (2 q' - 1) where q' is the message.
    """

    name: str
    logits: Tensor
    guide: Tensor
    weight: float
    difference: Callable[[int], list[float]]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _alone(unary: float, weight: float, iterations: int) -> float:
    """A point without neighbours hears itself: x <- u + w (2 sigmoid(x) - 1)."""
    x = unary
    for _ in range(iterations):
        x = unary + weight * (2 * _sigmoid(x) - 1)
    return x


def _crowd(unaries: list[float], weight: float, iterations: int) -> list[float]:
    """Points with the same features all hear the mean of all."""
    x = list(unaries)
    for _ in range(iterations):
        mean = sum(2 * _sigmoid(value) - 1 for value in x) / len(x)
        x = [unary + weight * mean for unary in unaries]
    return x


def _two_labels(differences: list[float]) -> Tensor:
    return torch.stack([torch.tensor(differences), torch.zeros(len(differences))]).unsqueeze(0)


KNOWN = [
    KnownCRF("one point", _two_labels([0.7]), torch.zeros(1, 2, 1), 1.5, lambda t: [_alone(0.7, 1.5, t)]),
    KnownCRF(
        "two points far apart",
        _two_labels([0.7, -2.0]),
        torch.tensor([[[0.0, 100.0], [0.0, -100.0]]]),
        0.8,
        lambda t: [_alone(0.7, 0.8, t), _alone(-2.0, 0.8, t)],
    ),
    KnownCRF(
        "a crowd in one place",
        _two_labels([1.0, 1.0, 1.0, -0.5, 0.2]),
        torch.full((1, 3, 5), 2.5),
        2.0,
        lambda t: _crowd([1.0, 1.0, 1.0, -0.5, 0.2], 2.0, t),
    ),
    KnownCRF("nobody has an opinion", torch.zeros(1, 2, 6), random_features(1, 2, (6,)), 3.0, lambda t: [0.0] * 6),
]


@dataclass(frozen=True)
class SmallCRF:
    """Eight pixels, few labels, exact kernels in float64: small enough to enumerate all labellings.

    `strength` multiplies the kernels' weights, 1.5 and 1; features are (B = 1, 2, 8), as those of a bilateral kernel.
    """

    strength: float = 1.0
    labels: int = 3
    seed: int = 0
    kind: str = "potts"  # or "learned", symmetric and random; or "repulsive", equal labels pay
    normalization: str = "symmetric"

    @property
    def logits(self) -> Tensor:
        return random_values(1, self.labels, 8, dtype=torch.float64, seed=10 * self.seed)

    @property
    def features(self) -> list[Tensor]:
        return [random_features(1, 2, (8,), dtype=torch.float64, seed=10 * self.seed + 1 + m) for m in range(2)]

    @property
    def weights(self) -> Tensor:
        return self.strength * torch.tensor([[1.5], [1.0]], dtype=torch.float64)

    @property
    def mu(self) -> Tensor:
        eye = torch.eye(self.labels, dtype=torch.float64)
        noise = random_values(self.labels, self.labels, dtype=torch.float64, seed=10 * self.seed + 3)
        return {"potts": 1 - eye, "learned": 0.5 * (noise + noise.T), "repulsive": eye}[self.kind]

    def filters(self) -> list[GaussianFilter]:
        return [prepare(f, method="exact", normalization=self.normalization) for f in self.features]

    def arguments(self) -> tuple[Tensor, list[GaussianFilter], Tensor, Tensor]:
        """What `mean_field` takes, but for the iterations."""
        return self.logits, self.filters(), self.weights, self.mu

    def arrays(self) -> tuple[np.ndarray, list[np.ndarray], np.ndarray, np.ndarray, str]:
        """What `oracle` takes."""
        return (
            self.logits[0].numpy(),
            [f[0].numpy() for f in self.features],
            self.weights.numpy(),
            self.mu.numpy(),
            self.normalization,
        )
