"""A small network and its CRF-RNN, trained on the strokes of one photo: first the network, then both end to end."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.layer import CRFRNN

HIDDEN, DROPOUT = 64, 0.1
NETWORK_STEPS, JOINT_STEPS = 100, 30
NETWORK_RATE, JOINT_RATE, CRF_RATE = 1e-2, 3e-4, 2e-2  # peaks of the learning rates, AdamW
WEIGHT_DECAY = 1e-3
SMOOTHING = 0.05  # of the labels, in the network's own loss: strokes are fewer than what they stand for
BALANCE = 0.5  # classes count with (number of their stroke pixels)^-BALANCE: 0 by their area, 1 all alike
HIDE, CELL = 0.3, 20  # share of the strokes that a step hides from the CRF, in cells of so many pixels
MOST_STROKES = 8000  # stroke pixels that a step looks at

THETA_ALPHA, THETA_BETA, THETA_GAMMA = 0.05, 10.0, 0.02  # in diagonals of the photo, in 0..255, in diagonals
BILATERAL_WEIGHT, SPATIAL_WEIGHT = 5.0, 3.0


class PixelNetwork(nn.Sequential):
    """Features (N, F) of pixels -> logits (N, L): two hidden layers, one pixel at a time."""

    def __init__(self, features: int, labels: int):
        layers: list[nn.Module] = []
        for inputs in (features, HIDDEN):
            layers += [nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)]
        super().__init__(*layers, nn.Linear(HIDDEN, labels))


@dataclass(frozen=True)
class Strokes:
    """The photo at the size at which it is learned, and what its strokes say there."""

    image: Tensor  # (1, 3, H, W) float32, 0..255
    features: Tensor  # (H * W, F)
    pixels: Tensor  # (P,) which pixels have a stroke, as indices into H * W
    targets: Tensor  # (P,) their labels, 0..L-1
    labels: int  # L

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[2], self.image.shape[3]

    def class_weights(self) -> Tensor:
        """(L,) with mean 1: a class with few strokes must not drown."""
        weights = torch.bincount(self.targets, minlength=self.labels).clamp(min=1).float() ** -BALANCE
        return weights / weights.mean()


def stroke_crf(labels: int, size: tuple[int, int], iterations: int = 10) -> CRFRNN:
    """The CRF-RNN for a photo of (height, width): bandwidths of position are shares of its diagonal."""
    diagonal = math.hypot(*size)
    kernels = (
        Bilateral(THETA_ALPHA * diagonal, THETA_BETA, weight=BILATERAL_WEIGHT),
        Spatial(THETA_GAMMA * diagonal, weight=SPATIAL_WEIGHT),
    )
    return CRFRNN(labels, kernels=kernels, iterations=5, eval_iterations=iterations)


def logits_map(network: nn.Module, strokes: Strokes) -> Tensor:
    """(1, L, H, W), the network's output for every pixel."""
    return network(strokes.features).t().reshape(1, strokes.labels, *strokes.size)


def train_network(
    network: nn.Module, strokes: Strokes, steps: int = NETWORK_STEPS, progress: Callable[[], object] = lambda: None
) -> None:
    """The first stage: cross-entropy on the pixels with strokes, in place. It looks at no other pixel."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=NETWORK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, max(1, steps))
    inputs, weights = strokes.features[strokes.pixels], strokes.class_weights()
    network.train()
    for _ in range(steps):
        loss = F.cross_entropy(network(inputs), strokes.targets, weight=weights, label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress()


def train_end_to_end(
    network: nn.Module,
    crf: CRFRNN,
    strokes: Strokes,
    steps: int = JOINT_STEPS,
    progress: Callable[[], object] = lambda: None,
) -> None:
    """The second stage: network and CRF-RNN as one recurrent network (section 5.2), in place.

    A network that already fits its strokes has nothing to learn from them. So each step hides some strokes: in cells
    of the photo that are drawn by lot the CRF gets no unary, must say the label from the messages of the pixels
    around, and the loss is put there. Its gradient runs through the T iterations into the kernel weights, the
    compatibility and the network's logits for pixels without any stroke. The loss is the expected share of wrong
    labels, 1 - Q(label): cross-entropy would follow the few strokes along edges that no CRF can infer.
    The network's own cross-entropy on all strokes keeps it from forgetting them.
    """
    parameters = [
        {"params": network.parameters(), "lr": JOINT_RATE, "weight_decay": WEIGHT_DECAY},
        {"params": crf.parameters(), "lr": CRF_RATE, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, max(1, steps))
    weights = strokes.class_weights()
    network.train()
    crf.train()
    for _ in range(steps):
        logits = logits_map(network, strokes)
        hidden = hidden_cells(strokes.size)
        refined = crf(logits * ~hidden, strokes.image)
        loss = F.cross_entropy(
            logits[0].flatten(1).t()[strokes.pixels], strokes.targets, weight=weights, label_smoothing=SMOOTHING
        )
        asked = hidden.flatten()[strokes.pixels]
        if asked.any():
            marginals = refined[0].flatten(1).t()[strokes.pixels[asked]].softmax(dim=1)
            targets = strokes.targets[asked]
            wrong = 1 - marginals.gather(1, targets.unsqueeze(1)).squeeze(1)
            loss = loss + wrong.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress()


def hidden_cells(size: tuple[int, int]) -> Tensor:
    """(H, W) bool: square cells of a grid at a random place, each True with probability `HIDE`."""
    height, width = size
    top, left = torch.randint(0, CELL, (2,)).tolist()
    cells = torch.rand(height // CELL + 2, width // CELL + 2) < HIDE
    rows, columns = (torch.arange(height) + top) // CELL, (torch.arange(width) + left) // CELL
    return cells[rows][:, columns]
