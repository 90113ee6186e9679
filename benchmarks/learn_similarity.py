"""The constants of `stroke_similarity.SIMILARITY`: the kernel by gradients, then the CRF by a search.

    python -m benchmarks.learn_similarity --voc PATH_TO/voc2012 --camvid PATH_TO/camvid

On photos that are not reported (`ruled_strokes`): 44 of VOC and 20 of CamVid. The kernel's parameters minimise the
cross-entropy of 1500 places of each photo, each class weighted by the root of its area; the CRF's are the best of
`TRIALS` drawn by lot around the present ones, by mean IoU at half the size.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.ruled_strokes import VOID, Task, mean_iou, tasks, use
from crfrnn.commands.segment.segment import drawn_places, evidence_of
from crfrnn.commands.segment.stroke_features import photo_features
from crfrnn.commands.segment.stroke_similarity import SIMILARITY, Similarity, similarity_logits
from crfrnn.networks.photo_size import fitting_size, resized

PHOTOS, PLACES = 44, 1500
STEPS, RATE = 30, 0.15
TRIALS = 40


@dataclass(frozen=True)
class Sample:
    """One photo's squared distances of features from the strokes to some places, without the strokes' own."""

    squared: Tensor  # (B, P, P + Q), of each feature
    drawn: Tensor  # (P,) labels of the strokes
    truth: Tensor  # (Q,) labels of the others
    labels: int


def sampled(task: Task, names: Sequence[str], generator: torch.Generator) -> Sample:
    features = photo_features(task.photo)
    height, width = features["position"].shape[1:]
    places, targets = drawn_places([task.strokes == c for c in task.classes], (height, width), seed=0)
    truth = torch.from_numpy(at_places(task.truth, (height, width)).ravel())
    known = torch.from_numpy(np.isin(truth, task.classes)).nonzero().flatten()
    asked = known[torch.randperm(len(known), generator=generator)[:PLACES]]
    both = torch.cat([places, asked])
    flat = [features[name].flatten(1).t() for name in names]
    squared = torch.stack([torch.cdist(values[places], values[both]) ** 2 for values in flat])
    return Sample(
        squared.half(), targets, torch.searchsorted(torch.from_numpy(task.classes), truth[asked]), len(task.classes)
    )


def logits(sample: Sample, weights: Tensor, noise: Tensor, balance: Tensor, sharpness: Tensor) -> Tensor:
    """(Q, L), as in `similarity_logits`."""
    kernel = torch.einsum("b,bij->ij", weights.exp(), sample.squared.float()).neg().exp()
    inner, outer = kernel.split([len(sample.drawn), kernel.shape[1] - len(sample.drawn)], dim=1)
    importance = torch.bincount(sample.drawn, minlength=sample.labels).float()[sample.drawn] ** -balance
    wanted = F.one_hot(sample.drawn, sample.labels).float() - 1 / sample.labels
    coefficients = torch.linalg.solve(inner + (noise.exp() * importance.mean() / importance).diag(), wanted)
    return sharpness.exp() * (outer.t() @ coefficients)


def learn_kernel(samples: Sequence[Sample], start: Similarity) -> Similarity:
    names = list(start.log_weights)
    values = (list(start.log_weights.values()), start.log_noise, start.balance, start.log_sharpness)
    parameters = [torch.tensor(value, requires_grad=True) for value in values]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = []
        for sample in samples:
            importance = torch.bincount(sample.truth, minlength=sample.labels).clamp(min=20).float() ** -0.5
            loss = F.cross_entropy(logits(sample, *parameters), sample.truth, weight=importance)
            (loss / len(samples)).backward()
            losses.append(loss.item())
        optimizer.step()
        if step % 10 == 0 or step == STEPS - 1:
            print(f"step {step}: {np.mean(losses):.4f}", flush=True)
    weights, noise, balance, sharpness = (parameter.detach().numpy().round(2).tolist() for parameter in parameters)
    return replace(
        start,
        log_weights=dict(zip(names, weights, strict=True)),
        log_noise=noise,
        balance=balance,
        log_sharpness=sharpness,
    )


def search_crf(photos: Sequence[Task], similarity: Similarity, generator: np.random.Generator) -> Similarity:
    """The best of `TRIALS` CRFs, each drawn around the best so far."""
    halves = [halved(task, similarity) for task in photos]

    def quality(trial: Similarity) -> float:
        return float(np.mean([quality_of(trial, *half) for half in halves]))

    factor = {"theta_alpha": 1.0, "theta_beta": 0.5, "theta_gamma": 0.7, "bilateral_weight": 0.7, "spatial_weight": 0.7}
    best, most = similarity, quality(similarity)
    print(f"{most:.2f} at the start, {quality(replace(similarity, bilateral_weight=0, spatial_weight=0)):.2f} without")
    for trial in range(TRIALS):
        spread = 1.0 if trial < TRIALS / 2 else 0.4
        changes = {
            name: round(getattr(best, name) * math.exp(spread * size * generator.normal()), 4)
            for name, size in factor.items()
        }
        changed = replace(best, **changes)
        if (reached := quality(changed)) > most:
            best, most = changed, reached
            print(f"{most:.2f}: {changes}", flush=True)
    return best


def halved(task: Task, similarity: Similarity) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """At half the size: logits, photo, truth and strokes; and the classes' numbers."""
    size = fitting_size(task.truth.shape, task.truth.size / 4)
    features = photo_features(task.photo)
    height, width = features["position"].shape[1:]
    drawn = [task.strokes == c for c in task.classes]
    values = similarity_logits(features, *drawn_places(drawn, (height, width), 0), len(drawn), similarity)
    values = F.interpolate(values, size=size, mode="bilinear", align_corners=True)
    truth, strokes = (at_places(labels, size) for labels in (task.truth, task.strokes))
    return values + evidence_of(drawn, size), resized(task.photo, size), truth, strokes, task.classes


def at_places(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) at the places of a grid that spans them corner to corner."""
    height, width = (
        np.linspace(0, old - 1, new).round().astype(int) for old, new in zip(labels.shape, size, strict=True)
    )
    return labels[height][:, width]


def quality_of(
    similarity: Similarity, values: Tensor, photo: Tensor, truth: np.ndarray, strokes: np.ndarray, classes: np.ndarray
) -> float:
    with torch.no_grad():
        crf = similarity.crf(len(classes), (photo.shape[2], photo.shape[3])).eval()
        labels = classes[crf(values, photo)[0].argmax(dim=0).numpy()]
    asked = (truth != VOID) & (strokes < 0)
    return mean_iou(labels[asked], truth[asked])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--voc", type=Path, required=True)
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="the folder of a model, instead of the one in the package")
    options = parser.parse_args()
    use(options.model)
    photos = [*tasks("voc", options.voc, report=False, most=PHOTOS), *tasks("camvid", options.camvid, report=False)]
    generator = torch.Generator().manual_seed(0)
    learned = learn_kernel([sampled(task, list(SIMILARITY.log_weights), generator) for task in photos], SIMILARITY)
    print(learned)
    learned = search_crf(photos, learned, np.random.default_rng(0))
    print(learned)


if __name__ == "__main__":
    main()
