"""
Choose the parameters
=====================

From labelled images `crfrnn.fit` finds parameters for *your* network's predictions, and says on images that they were
not fitted on whether a CRF helps at all. Eight pieces of two photos stand for the images here.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, transform

from crfrnn import fit, refine

# %%
# Truths by colour alone: the cat's coat and the cup's dark coffee against everything else; predictions a sixteenth as
# large, with noise.

rng = np.random.default_rng(0)
images, truths, predictions = [], [], []
for photo, channel, level in ((data.chelsea(), 2, 90), (data.coffee()[:300, 75:525], 0, 120)):
    smooth = transform.resize(photo[..., channel].astype(float), photo.shape[:2])
    inside = transform.resize(transform.resize(smooth, (75, 112), anti_aliasing=True), photo.shape[:2]) < level
    small = transform.resize(inside.astype(float), (19, 28), anti_aliasing=True) + rng.normal(0, 0.12, (19, 28))
    foreground = transform.resize(np.clip(small, 0.05, 0.95), photo.shape[:2])
    for rows in (slice(0, 150), slice(150, 300)):
        for columns in (slice(0, 225), slice(225, 450)):
            images.append(photo[rows, columns])
            truths.append(inside[rows, columns].astype(np.uint8))
            predictions.append(np.stack([1 - foreground, foreground])[:, rows, columns].astype(np.float32))

# %%
# Every figure that is reported comes from images that took no part in the choice.

found = fit(images, predictions, truths)
print(found.parameters)
found

# %%
# The parameters are options of `crfrnn.refine`; ``found.parameters`` can be written to a file for ``crfrnn refine
# --config``.

which = 0
refined = refine(images[which], predictions[which], **found.parameters.options())
figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), layout="constrained")
shown = {"photo": images[which], "predictions": predictions[which].argmax(0), "refined": refined.argmax(0)}
for axis, (name, picture) in zip(axes, (shown | {"truth": truths[which]}).items(), strict=True):
    axis.imshow(picture, cmap="gray")
    axis.set(title=name, xticks=[], yticks=[])
