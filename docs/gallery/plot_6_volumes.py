"""
Volumes
=======

The same CRF on voxels: bandwidths of position count in millimetres along every axis, thick slices or thin. No scan has
a licence to be shipped here, so a ball and a rod stand for organs.
"""

import matplotlib.pyplot as plt
import numpy as np

from crfrnn import refine

spacing = (2.5, 0.8, 0.8)  # millimetres from one voxel to the next, (z, y, x)
rng = np.random.default_rng(0)
z, y, x = np.ogrid[-20:20:2.5, -32:32:0.8, -32:32:0.8]
truth = (x**2 + y**2 + (1.5 * z) ** 2 < 18**2).astype(np.uint8)
truth[np.broadcast_to((x - 24) ** 2 + y**2 < 4**2, truth.shape)] = 2
scan = np.array([-80, 40, 160])[truth] + 45 * rng.standard_normal(truth.shape)  # in Hounsfield units

odds = np.exp(1.1 * np.eye(3)[truth] + rng.normal(0, 1, (*truth.shape, 3)))
probabilities = np.moveaxis(odds / odds.sum(-1, keepdims=True), -1, 0).astype(np.float32)  # (L, z, y, x)

# %%
# Bandwidths in millimetres and in the scan's own units.

refined = refine(scan.astype(np.float32), probabilities, spacing=spacing, kernels=["bilateral:4,90,4", "spatial:1.5,1"])
for name, values in (("predictions", probabilities), ("refined", refined)):
    print(f"{name}: {(values.argmax(0) == truth).mean():.1%} of the voxels are right")

figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
middle = len(truth) // 2
shown = {"scan": scan, "predictions": probabilities.argmax(0), "refined": refined.argmax(0), "truth": truth}
for axis, (name, volume) in zip(axes, shown.items(), strict=True):
    axis.imshow(volume[middle], cmap="gray" if name == "scan" else "viridis")
    axis.set(title=name, xticks=[], yticks=[])
