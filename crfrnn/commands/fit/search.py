"""What is chosen from some of the images. What parameters do to an image is computed once, whoever asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from crfrnn.commands.fit import surface
from crfrnn.commands.fit.candidates import groups, presets
from crfrnn.commands.fit.held_out import merit
from crfrnn.commands.fit.sample import Sample
from crfrnn.commands.fit.surface import Surface
from crfrnn.commands.fit.workers import Workers
from crfrnn.commands.gain import gain
from crfrnn.parameters import CRFParameters

START = "start"
RUNGS = ("scalar weights", "class weights")  # from few parameters to many; more only where held-out images pay for them
LIKELY = 0.05  # a choice that is no better on so many of the resampled sets is not made
COMMON, ENOUGH = 0.25, 40  # share of the images, or number of them, with a class whose weights may have a factor
SHRINKAGES = (3e-4, 1e-3, 3e-3)  # what moving a weight by a factor of 2 must bring
FRACTIONS = (0.25, 0.5, 0.75, 1.0)  # of a move, which are measured
FOLDS = 4  # in which the shrinkage is chosen


@dataclass(frozen=True)
class Learned:
    """`start`, the best preset as it is; `parameters`, what is better, and which of `START` and `RUNGS` they are."""

    start: CRFParameters
    parameters: CRFParameters
    rung: str


class Search:
    """Choices from labelled images, all of them or some: those of a fold see nothing of the others."""

    def __init__(self, samples: Sequence[Sample], preset: str | None, iterations: int, pool: Workers, seed: int = 0):
        self._samples, self._pool, self._seed = samples, pool, seed
        self._groups = groups(preset, iterations)  # each of the same kernels
        self.candidates = [one for group in self._groups for one in group]
        self._presets = [self.candidates.index(one) for one in presets(preset)]
        found = pool.over(samples, self._candidates_on)
        self.alone = torch.stack([alone for alone, _ in found])  # (N, 3, L)
        self.counts = torch.stack([counts for _, counts in found], dim=1)  # (candidates, N, 3, L)
        # of all images: that a class is common says nothing of what parameters do to it
        occurs = torch.stack([sample.pixels > 0 for sample in samples]).sum(0)
        self._common = (occurs >= min(ENOUGH, COMMON * len(samples))).nonzero().flatten().tolist()
        self._moves: dict[tuple[int, int], Tensor] = {}

    def _candidates_on(self, sample: Sample) -> tuple[Tensor, Tensor]:
        counts = []
        for group in self._groups:
            filters = sample.filters(group[0])
            counts += [sample.counts(one, filters) for one in group]
        return sample.alone(), torch.stack(counts)

    def learn(self, images: Sequence[int]) -> Learned:
        """The best of the candidates on these images, moved from there where that pays, with factors for classes too.

        A move must be better in cross-validation among these images, hardly by chance, and then on them as measured.
        """
        chosen = torch.as_tensor(images)
        alone = self.alone[chosen]
        merits = [merit(counts[chosen], alone) for counts in self.counts]
        start = self._surely(max(self._presets, key=merits.__getitem__), 0, merits, chosen)
        best = self._surely(max(range(len(merits)), key=merits.__getitem__), start, merits, chosen)
        base = self.candidates[best]
        found, value = (START if best == start else RUNGS[0], base), merits[best]
        if len(images) < FOLDS:  # too few to hold some out
            return Learned(self.candidates[start], found[1], found[0])
        moved = self._moved(best, images)
        counts = self.counts[best][chosen].double()
        for rung, coordinates in zip(RUNGS, (surface.scalars(base), moved.shape[1]), strict=True):
            held_out = [_held_out(moved, shrinkage, coordinates) for shrinkage in SHRINKAGES]
            values = [merit(one, alone) for one in held_out]
            at = values.index(max(values))
            if values[at] > merit(counts, alone) and gain(held_out[at], counts, self._seed).chance < LIKELY:
                counts = held_out[at]
                delta = Surface.of(moved.sum(0)).best(SHRINKAGES[at], coordinates)
                there, worth = self._along(base, delta, images)
                if worth > value:
                    found, value = (rung, there), worth
        return Learned(self.candidates[start], found[1], found[0])

    def _surely(self, better: int, than: int, merits: Sequence[float], images: Tensor) -> int:
        """The first of two candidates if that is hardly by chance; with few images the best of many is so by chance."""
        by_chance = gain(self.counts[better][images], self.counts[than][images], self._seed).chance >= LIKELY
        return than if by_chance and merits[than] >= 0 else better

    def _along(self, base: CRFParameters, delta: Tensor, images: Sequence[int]) -> tuple[CRFParameters, float]:
        """The best on the way from the base to delta, and its merit: measured, as a sum of parabolas may go too far."""
        way = [surface.at(base, fraction * delta) for fraction in FRACTIONS]

        def work(number: int) -> Tensor:
            sample = self._samples[number]
            filters = sample.filters(base)
            return torch.stack([sample.counts(one, filters) for one in way])

        counts = torch.stack(self._pool.over(images, work), dim=1)
        merits = [merit(one, self.alone[torch.as_tensor(images)]) for one in counts]
        best = merits.index(max(merits))
        return way[best], merits[best]

    def _moved(self, base: int, images: Sequence[int]) -> Tensor:
        """(images, K, 3, 3, L), `moves` of each from a candidate."""
        missing = [number for number in images if (base, number) not in self._moves]

        def work(number: int) -> Tensor:
            return surface.moves(self._samples[number], self.candidates[base], self._common)

        self._moves |= zip([(base, number) for number in missing], self._pool.over(missing, work), strict=True)
        return torch.stack([self._moves[base, number] for number in images])


def folds_of(images: Sequence[int], folds: int) -> list[tuple[list[int], list[int]]]:
    """Runs of neighbours: the numbers of images to learn from, and of those held out, for each."""
    parts = [part.tolist() for part in np.array_split(np.asarray(images), min(folds, len(images)))]
    return [([one for one in images if one not in set(part)], part) for part in parts]


def _held_out(moved: Tensor, shrinkage: float, coordinates: int) -> Tensor:
    """(N, 3, L), what the images come to with what the other folds' images would choose."""
    found = torch.empty(len(moved), *moved.shape[-2:], dtype=torch.float64)
    for training, part in folds_of(range(len(moved)), FOLDS):
        delta = Surface.of(moved[training].sum(0)).best(shrinkage, coordinates)
        found[part] = Surface.of(moved[part]).at(delta)
    return found
