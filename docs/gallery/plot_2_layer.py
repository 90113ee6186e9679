"""
A layer that learns
===================

`crfrnn.CRFRNN` stands behind a network's logits, and its parameters learn with the network's. Here the logits are
given, so that what the CRF learns is seen alone: on the left half of a photo, judged on the right half.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage import data, io

import crfrnn
from crfrnn import CRFRNN, Bilateral, Spatial, segment_strokes

torch.manual_seed(0)

# %%
# The truth is what the strokes of ``crfrnn demo`` make of the cat; the logits are that at an eighth of the size, with
# noise.

photo = data.chelsea()
colours = io.imread(Path(crfrnn.__file__).parent / "commands/demo/strokes.png")
drawn, strokes = np.unique(colours.reshape(-1, colours.shape[-1]), axis=0, return_inverse=True)
strokes = strokes.reshape(photo.shape[:2])
empty = int(np.bincount(strokes.ravel()).argmax())
labels = torch.from_numpy(segment_strokes(photo, strokes, void=empty).labels.astype(np.int64))
classes, truth = labels.unique(return_inverse=True)

one_hot = torch.nn.functional.one_hot(truth, len(classes)).movedim(-1, 0)[None].float()
coarse = torch.nn.functional.avg_pool2d(one_hot, 8)
coarse = 4 * coarse + 0.7 * torch.randn_like(coarse)
logits = torch.nn.functional.interpolate(coarse, truth.shape, mode="bilinear")  # (1, L, H, W)
image = torch.from_numpy(photo).movedim(-1, 0)[None]  # (1, 3, H, W), 0..255

# %%
# Weights for each class, the compatibility and the bandwidths learn, each at the rate that suits it.

crf = CRFRNN(len(classes), kernels=(Bilateral(40, 10, weight=1), Spatial(3, weight=1)), learn_bandwidths=True)
optimiser = torch.optim.AdamW(crf.parameter_groups(lr=3e-3), lr=3e-3)
left, right = slice(0, 224), slice(224, None)
losses = []
for _ in range(20):
    refined = crf(logits[..., left], image[..., left])
    loss = torch.nn.functional.cross_entropy(refined, truth[None, :, left])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    losses.append(loss.item())

# %%

crf  # in a notebook: its kernels as they are now

# %%
# On the half that it did not see:

crf.eval()  # T = 10
with torch.no_grad():
    refined = crf(logits[..., right], image[..., right])
before, after = logits[0, :, :, right].argmax(0), refined[0].argmax(0)
for name, found in (("logits", before), ("with the CRF", after)):
    print(f"{name}: {(found == truth[:, right]).float().mean():.1%} of the pixels are right")

figure, axes = plt.subplots(1, 4, figsize=(11, 3.4), layout="constrained", width_ratios=(1.4, 1, 1, 1))
axes[0].plot(losses)
axes[0].set(xlabel="update", title="cross-entropy")
for axis, (name, shown) in zip(
    axes[1:], {"logits": before, "with the CRF": after, "truth": truth[:, right]}.items(), strict=True
):
    axis.imshow(shown, cmap="tab10", vmax=9, interpolation="nearest")
    axis.set(title=name, xticks=[], yticks=[])
