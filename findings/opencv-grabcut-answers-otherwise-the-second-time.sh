#!/usr/bin/env bash
# OpenCV 4.12.0: cv2.grabCut begins with k-means, which draws from the process's one generator of random numbers and does
# not begin it anew. The same photograph, rectangle and five iterations, called again in the same process, give another
# mask: of scikit-image's astronaut the first five have an IoU of 1, 0.64, 1.00, 0.64 and 1.00 with the first, of the cat
# 1, 0.97, 0.99, 0.93 and 0.93. With cv2.setRNGSeed(0) before each call they are equal, and equal to the first one of a
# process. grabCut is what a refinement of a box or a few strokes is usually measured against: without the seed its
# score depends on what the script did before, on the order of the photos and on how they are shared out among
# processes, by more than most refinements gain.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-python-headless==4.12.0.88 scikit-image==0.26.0 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
import sys

import cv2
import numpy as np
from skimage import data

PHOTOS = {"astronaut": (102, 51, 307, 409), "chelsea": (90, 20, 260, 270)}  # x, y, width and height of the rectangle
name = sys.argv[1]
photo = np.ascontiguousarray(getattr(data, name)()[..., ::-1])


def cut():
    mask, *models = np.zeros(photo.shape[:2], np.uint8), np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(photo, mask, PHOTOS[name], *models, 5, cv2.GC_INIT_WITH_RECT)
    return (mask & 1).astype(bool)


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def cut_anew():
    cv2.setRNGSeed(0)
    return cut()


first, *others = (cut() for _ in range(5))
shares = [iou(first, other) for other in others]
print(name, "IoU with the first:", np.round(shares, 3), "seeded:", [iou(first, cut_anew()) for _ in range(2)])
assert min(shares) < (0.8 if name == "astronaut" else 0.95)
assert all(np.array_equal(first, cut_anew()) for _ in range(2))
CASE
for photo in astronaut chelsea; do "$folder/venv/bin/python" "$folder/case.py" "$photo"; done
