"""Edges in a large photo: where neighbours cannot change a label nothing is computed, and nothing is lost."""

import numpy as np
import pytest
import torch
from skimage import data

from crfrnn.networks import photo_size
from crfrnn.networks.photo_size import BLOCK, placed


@pytest.fixture
def scene() -> tuple[torch.Tensor, np.ndarray]:
    """Logits (1, 3, 75, 113) that are sure but for the surroundings of two circles, and a photo four times as large."""
    photo = np.ascontiguousarray(data.chelsea())
    y, x = np.mgrid[:75, :113]
    near, far = (np.hypot(y - a, x - b) for a, b in ((30, 30), (55, 40)))
    return torch.from_numpy(np.stack([np.full(y.shape, 0.0), 12 - near, 9 - far])).float()[None] * 2, photo


def marginals(logits: torch.Tensor, photo: np.ndarray) -> np.ndarray:
    whole = np.empty((logits.shape[1], *photo.shape[:2]), np.float32)
    for rows, q in placed(logits, photo, edges=True):
        whole[:, rows] = q
    return whole


def test_labels_are_those_of_a_crf_over_all_of_it(scene, monkeypatch):
    logits, photo = scene
    monkeypatch.setattr(photo_size, "BAND_VALUES", 100 * photo.shape[1] * 3)
    worked: list[int] = []
    local = photo_size._local

    def counted(part: torch.Tensor, *rest: object) -> torch.Tensor:
        worked.append(part[0, 0].numel())
        return local(part, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(photo_size, "_local", counted)
    some = marginals(logits, photo)
    some_pixels = sum(worked)
    worked.clear()
    monkeypatch.setattr(photo_size, "_undecided", lambda q: [slice(0, q.shape[-1])])
    every = marginals(logits, photo)
    assert some_pixels < 0.8 * sum(worked)
    assert (some.argmax(0) == every.argmax(0)).mean() > 0.9999  # lattices of other crops round otherwise
    assert (every.argmax(0) != marginals_of(logits, photo).argmax(0)).mean() > 0.002  # it does something at all
    np.testing.assert_allclose(some.sum(0), 1, atol=1e-5)


def marginals_of(logits: torch.Tensor, photo: np.ndarray) -> np.ndarray:
    """Without edges."""
    return np.concatenate([q for _, q in placed(logits, photo, edges=False)], axis=1)


def test_which_columns_are_undecided():
    q = torch.zeros(1, 2, 4, 5 * BLOCK + 10)
    q[:, 0] = 0.99
    for column in (3, BLOCK + 1, 4 * BLOCK, 5 * BLOCK + 9):
        q[:, 0, 2, column] = 0.98
    q[:, 1] = 1 - q[:, 0]
    assert list(photo_size._undecided(q)) == [slice(0, 2 * BLOCK), slice(4 * BLOCK, 5 * BLOCK + 10)]
    assert list(photo_size._undecided(q[..., 2 * BLOCK : 4 * BLOCK])) == []
