"""
Refine predictions
==================

Somebody's network says what is where, and is vague about the edges. `crfrnn.refine` takes its probabilities and the
photo.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, transform

from crfrnn import load_model, refine

photo = data.chelsea()  # (300, 451, 3) uint8

# %%
# A network's output: the one in this package, without its CRF, as a coarser network would give it.

network, _ = load_model("voc")
sharp = network.probabilities(photo, crf=False)  # (21, 300, 451)
coarse = np.stack([transform.resize(plane, (19, 29), anti_aliasing=True) for plane in np.asarray(sharp)])
probabilities = np.stack([transform.resize(plane, photo.shape[:2]) for plane in coarse]).astype(np.float32)
probabilities /= probabilities.sum(0)

# %%
# `present`, the default preset, is weak enough for a present network. The strong ones of 2015 believe the colours
# more, which is not always better: the cheek and the wall have much the same colour.

results = {"the network": probabilities}
for preset in ("present", "deeplab-v2", "crfrnn"):
    results[preset] = refine(photo, probabilities, preset=preset)

cat = network.class_names.index("cat")
figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
for axis, (name, marginals) in zip(axes.flat, results.items(), strict=True):
    axis.imshow(photo)
    axis.contour(np.asarray(marginals).argmax(0) == cat, [0.5], colors="tab:orange", linewidths=2)
    axis.set(title=name, xticks=[], yticks=[])

# %%
# What comes back are marginals: where they are far from 0 and 1, the edge is unsure.

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
figure.colorbar(axis.imshow(results["deeplab-v2"][cat], vmin=0, vmax=1), label="Q(cat)")
axis.set(xticks=[], yticks=[])
