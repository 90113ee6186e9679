"""
Segment from a few strokes
==========================

Any photo, any classes, nothing to train: a stroke on each thing and on the background says what is what.
"""

import matplotlib.pyplot as plt
import numpy as np
from skimage import data, draw

from crfrnn import segment_strokes

photo = data.coffee()  # (400, 600, 3)

# %%
# Strokes are whole numbers, -1 where nothing is drawn: 0 the table, 1 the saucer, 2 the cup, 3 the coffee.

lines = {
    0: [((60, 30), (30, 130)), ((30, 430), (90, 570)), ((370, 40), (330, 90)), ((380, 480), (300, 570))],
    1: [((232, 130), (310, 190)), ((360, 300), (335, 420)), ((215, 495), (250, 485))],
    2: [((205, 190), (275, 290)), ((60, 230), (75, 330))],
    3: [((130, 260), (150, 390)), ((170, 300), (180, 360))],
}
strokes = np.full(photo.shape[:2], -1)
for label, drawn in lines.items():
    for (y0, x0), (y1, x1) in drawn:
        y, x = draw.line(y0, x0, y1, x1)
        for shift in range(-3, 4):
            strokes[y + shift, x] = label

result = segment_strokes(photo, strokes)
result

# %%
# On the photo: left the strokes, in the middle what resembles them in a network's eyes, right that with a CRF-RNN.

figure, axes = plt.subplots(1, 3, figsize=(11, 2.7), layout="constrained")
layers = {"strokes": strokes, "what resembles them": result.network_labels, "with a CRF-RNN": result.labels}
for axis, (name, labels) in zip(axes, layers.items(), strict=True):
    axis.imshow(photo)
    axis.imshow(np.ma.masked_less(labels, 0), cmap="tab10", vmax=9, alpha=0.55 if labels is not strokes else 1)
    axis.set(title=name, xticks=[], yticks=[])
