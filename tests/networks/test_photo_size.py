"""Edges in a large photo: where neighbours cannot change a label nothing is computed, and nothing is lost."""

from functools import partial

import numpy as np
import torch
from skimage import data

from crfrnn.filtering.kernels import Bilateral, Spatial
from crfrnn.networks import photo_size
from crfrnn.networks.photo_size import BLOCK, placed


def test_labels_are_those_of_a_crf_over_all_of_it(monkeypatch):
    """By exact filters, as a lattice over another crop is another approximation."""
    for kernel in (Bilateral, Spatial):
        monkeypatch.setattr(photo_size, kernel.__name__, partial(kernel, method="exact"))
    monkeypatch.setattr(photo_size, "BLOCK", 16)
    photo = np.ascontiguousarray(data.chelsea()[100:124, 60:260])
    y, x = np.mgrid[:12, :100]
    near, far = (np.hypot(y - a, x - b) for a, b in ((6, 12), (8, 75)))  # all but what surrounds them is sure
    logits = 2 * torch.from_numpy(np.stack([np.full(y.shape, 0.0), 4 - near, 3 - far])).float()[None]
    scaled = marginals(logits, photo, edges=False)
    assert list(photo_size._undecided(torch.from_numpy(scaled[None]))) == [slice(0, 48), slice(128, 176)]
    some = marginals(logits, photo, edges=True)
    monkeypatch.setattr(photo_size, "_undecided", lambda q: [slice(0, q.shape[-1])])
    every = marginals(logits, photo, edges=True)
    np.testing.assert_array_equal(some.argmax(0), every.argmax(0))
    assert (every.argmax(0) != scaled.argmax(0)).mean() > 0.01  # it does something at all
    np.testing.assert_allclose(some.sum(0), 1, atol=1e-5)


def marginals(logits: torch.Tensor, photo: np.ndarray, edges: bool) -> np.ndarray:
    return np.concatenate([q for _, q in placed(logits, photo, edges=edges)], axis=1)


def test_which_columns_are_undecided():
    q = torch.zeros(1, 2, 4, 5 * BLOCK + 10)
    q[:, 0] = 0.99
    for column in (3, BLOCK + 1, 4 * BLOCK, 5 * BLOCK + 9):
        q[:, 0, 2, column] = 0.98
    q[:, 1] = 1 - q[:, 0]
    assert list(photo_size._undecided(q)) == [slice(0, 2 * BLOCK), slice(4 * BLOCK, 5 * BLOCK + 10)]
    assert list(photo_size._undecided(q[..., 2 * BLOCK : 4 * BLOCK])) == []
