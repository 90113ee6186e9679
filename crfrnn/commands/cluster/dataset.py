"""Refinement as a step of a Ray Dataset that somebody has already: `crfrnn.cluster.refine_dataset`."""

from typing import Any

import numpy as np
import torch

from crfrnn.commands.cluster.connect import load_ray
from crfrnn.commands.errors import UsageError
from crfrnn.commands.refine.refine import refine


class RefineBatch:
    """A class for ``Dataset.map_batches``: its objects hold the compiled kernels, and add columns to batches.

    Args:
        image: the column of photographs, each (H, W, 3) uint8 or another guide that `crfrnn.refine` takes.
        probabilities: the column of predictions, each (L, H, W) or (H, W) of a foreground; `logits` instead of them.
        logits: the column of outputs before a softmax.
        labels: the column that gets label maps (H, W), uint8, or uint16 above 256 labels; None for none.
        marginals: the column that gets the refined predictions in the form of those, float16; None for none.
        threads: cores that one call may use.
        options: as of `crfrnn.refine`, such as ``preset="deeplab-v2"``.

    Raises:
        ValueError: what `crfrnn.refine` refuses, with the number of the row in its batch; a column that is not there.

    >>> photo, p = np.zeros((2, 8, 9, 3), np.uint8), np.full((2, 4, 8, 9), 0.25, np.float32)
    >>> batch = RefineBatch(iterations=2)({"image": photo, "probabilities": p})
    >>> batch["labels"].shape, batch["labels"].dtype
    ((2, 8, 9), dtype('uint8'))
    """

    def __init__(
        self,
        *,
        image: str = "image",
        probabilities: str = "probabilities",
        logits: str | None = None,
        labels: str | None = "labels",
        marginals: str | None = None,
        threads: int = 1,
        **options: Any,
    ):
        self._options = options
        self._columns = image, logits or probabilities
        self._name = "logits" if logits else "probabilities"
        self._labels, self._marginals = labels, marginals
        torch.set_num_threads(threads)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch with the new columns."""
        for column in self._columns:
            if column not in batch:
                raise ValueError(f"{column}: there is no such column; the data set has {', '.join(batch)}")
        images, predictions = (batch[column] for column in self._columns)
        refined = [self._one(number, *pair) for number, pair in enumerate(zip(images, predictions, strict=True))]
        added = {}
        if self._labels:
            added[self._labels] = _column([_labels(q) for q in refined])
        if self._marginals:
            added[self._marginals] = _column([q.astype(np.float16) for q in refined])
        return {**batch, **added}

    def _one(self, number: int, image: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        try:
            return refine(np.asarray(image), **{self._name: np.asarray(predictions)}, **self._options)
        except ValueError as error:
            raise ValueError(f"row {number} of a batch: {error}") from error


def refine_dataset(dataset: Any, *, cpus: int = 1, workers: int | tuple[int, int] | None = None, **columns: Any) -> Any:
    """A ``ray.data.Dataset`` with columns of refined labels; nothing runs before it is read.

    Args:
        dataset: with a column of images and one of predictions; others go along.
        cpus: cores of each worker.
        workers: how many, or the fewest and the most; None lets Ray choose.
        columns: the arguments of `RefineBatch`.

    Raises:
        ValueError: Ray is not installed, columns that are not there.

    ``refine_dataset(ray.data.read_parquet("s3://bucket/scored"), logits="scores").write_parquet("s3://bucket/refined")``
    """
    ray = load_ray()
    known = dataset.columns() or []
    wanted = columns.get("image", "image"), columns.get("logits") or columns.get("probabilities", "probabilities")
    for column in wanted:
        if column not in known:
            raise UsageError(f"{column}: there is no such column; the data set has {', '.join(known)}")
    sizes = (workers, workers) if isinstance(workers, int) else workers or (1, None)
    return dataset.map_batches(
        RefineBatch,
        fn_constructor_kwargs={"threads": cpus, **columns},
        batch_size=8,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=sizes[0], max_size=sizes[1]),
        num_cpus=cpus,
    )


def _labels(marginals: np.ndarray) -> np.ndarray:
    """(L, H, W) or (H, W) of a foreground -> (H, W)."""
    if marginals.ndim == 2:
        return (marginals > 1 / 2).astype(np.uint8)
    return marginals.argmax(0).astype(np.uint8 if len(marginals) <= 256 else np.uint16)


def _column(arrays: list[np.ndarray]) -> np.ndarray:
    """One array where all have one shape, else an array of arrays, as Ray has them."""
    if len({array.shape for array in arrays}) <= 1:
        return np.stack(arrays) if arrays else np.empty(0)
    column = np.empty(len(arrays), object)
    column[:] = arrays
    return column
