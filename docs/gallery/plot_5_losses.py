"""
Train with few labels
=====================

A few strokes are labelled, all other pixels are not. `crfrnn.losses.DenseCRFLoss` beside the cross-entropy tells the
network that near and alike pixels have one label.
"""

import matplotlib.pyplot as plt
import torch
from skimage import data, draw
from torch import nn

from crfrnn import Bilateral
from crfrnn.losses import DenseCRFLoss

photo = data.coffee()[::3, ::3]  # (134, 200, 3)
image = torch.from_numpy(photo.copy()).movedim(-1, 0)[None].float()  # (1, 3, H, W), 0..255
scribbles = torch.full((1, *photo.shape[:2]), 255)  # 255: no label
drawn = [(0, (20, 10), (10, 43)), (0, (10, 143), (30, 190)), (0, (110, 160), (100, 190)), (0, (125, 10), (110, 30))]
drawn += [(1, (77, 43), (103, 63)), (1, (45, 90), (55, 125)), (1, (20, 78), (24, 105)), (1, (70, 65), (88, 100))]
for label, start, end in drawn:
    y, x = draw.line(*start, *end)
    scribbles[0, y, x] = label

# %%
# The same small network, from the same weights, with and without the loss.


def train(weight: float) -> torch.Tensor:
    """The probability of the cup with its saucer, (H, W), after sixty updates."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.Conv2d(16, 2, 1)
    )
    dense_crf = DenseCRFLoss(weight=weight, kernels=[Bilateral(10, 20)], normalization="after")
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        logits = network(image / 127 - 1)
        loss = nn.functional.cross_entropy(logits, scribbles, ignore_index=255)
        if weight:
            loss = loss + dense_crf(logits, image, logits=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return logits.softmax(1)[0, 1].detach()


figure, axes = plt.subplots(1, 3, figsize=(11, 2.7), layout="constrained")
axes[0].imshow(photo)
y, x = (scribbles[0] != 255).nonzero(as_tuple=True)
axes[0].scatter(x, y, c=scribbles[0, y, x], s=3, cmap="bwr")
axes[0].set_title("scribbles")
axes[1].imshow(train(0), vmin=0, vmax=1)
axes[1].set_title("cross-entropy alone")
axes[2].imshow(train(0.1), vmin=0, vmax=1)
axes[2].set_title("with the dense CRF's loss")
for axis in axes:
    axis.set(xticks=[], yticks=[])
