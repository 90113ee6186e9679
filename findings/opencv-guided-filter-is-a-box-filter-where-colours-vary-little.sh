#!/usr/bin/env bash
# opencv-contrib-python-headless 5.0.0.93 (the same in 4.13.0.92): cv2.ximgproc.guidedFilter inverts a 3 x 3 covariance of
# the guide's channels for each window. Where the determinant of covariance + eps is below some 1e-6 it gives up without a
# word: the coefficients are zero, and the output is the mean of a box, as if there were no guide. With colours in 0..1
# that is nearly everywhere: three independent channels need a standard deviation of 0.1 each (0.1 ** 6), and those of a
# photograph vary together. Of the windows of radius 8 in a portrait, scikit-image's astronaut, 97 % are below at
# eps 1e-6 (feathering of masks, in the paper) and at 1e-4; at 0.001 93 %. One channel works, and so do the same colours
# times 255 with eps times 255 ** 2, which should be the same filter. The documentation asks for no range. Whoever refines
# a coarse mask along the edges of a photo in 0..1 gets it blurred instead, and finds guided filters useless.
# Seen, a disc's blurred mask and a noisy colour image of it, radius 60, eps 1e-6: right pixels by 0..1 71.8 %, by 0..255
# 100 %, by the formula in float64 100 %; and 0..1 differs from a box filter by less than 1e-6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q opencv-contrib-python-headless==5.0.0.93 numpy==2.2.6 scikit-image==0.26.0
cat >"$folder/case.py" <<'CASE'
import cv2
import numpy as np
from skimage import data

SIDE, RADIUS = 200, 60


def box(image):
    return cv2.blur(image, (2 * RADIUS + 1,) * 2, borderType=cv2.BORDER_REFLECT)


def formula(guide, mask, eps):
    """He, Sun and Tang 2010, eq. 14 to 16, in float64."""
    guide, mask = guide.astype(float), mask.astype(float)
    mean, middle = box(guide), box(mask)
    pairs = box((guide[..., :, None] * guide[..., None, :]).reshape(SIDE, SIDE, 9)).reshape(SIDE, SIDE, 3, 3)
    covariance = pairs - mean[..., :, None] * mean[..., None, :] + eps * np.eye(3)
    slope = np.linalg.solve(covariance, (box(guide * mask[..., None]) - mean * middle[..., None])[..., None])[..., 0]
    return (box(slope) * guide).sum(-1) + box(middle - (slope * mean).sum(-1))


rng = np.random.default_rng(0)
y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
disc = x**2 + y**2 < 60**2
colours = np.stack([0.3 + 0.4 * disc, 0.35 + 0.2 * disc, 0.7 - 0.4 * disc], -1)
colours = (colours + 0.02 * rng.standard_normal((SIDE, SIDE, 3))).astype(np.float32)
mask = cv2.GaussianBlur(disc.astype(np.float32), (0, 0), 6)


def right(result):
    return float(((result > 0.5) == disc).mean())


for eps in 1e-6, 1e-4, 3e-3:
    unit = cv2.ximgproc.guidedFilter(colours, mask, RADIUS, eps)
    scaled = cv2.ximgproc.guidedFilter(255 * colours, mask, RADIUS, 255**2 * eps)
    grey = cv2.ximgproc.guidedFilter(colours[..., 0].copy(), mask, RADIUS, eps)
    blurred, exact = box(box(mask)), formula(colours, mask, eps)
    shares = [right(each) for each in (unit, scaled, grey, exact)]
    print(f"eps {eps}: right by 0..1, 0..255, one channel, formula", *(f"{share:.2%}" for share in shares))
    print(f"  0..1 from a box twice over: {np.abs(unit - blurred).max():.1e}, 0..255 from the formula:", end=" ")
    print(f"{np.abs(scaled - exact).max():.1e}")
    assert np.abs(scaled - exact).max() < 0.01
    if eps < 1e-3:
        assert np.abs(unit - blurred).max() < 1e-3
        assert shares[0] < 0.75
    assert shares[0] < 0.95
    assert min(shares[1:]) > 0.99

for deviation, worst in (0.09, 0.75), (0.12, 0):  # a channel is filtered by itself: it should stay
    noise = (0.5 + deviation * rng.standard_normal((SIDE, SIDE, 3))).astype(np.float32)
    lost = np.abs(cv2.ximgproc.guidedFilter(noise, noise[..., 0].copy(), 8, 1e-9) - noise[..., 0]).mean() / deviation
    print(f"channels of deviation {deviation} (determinant {deviation**6:.1e}): {lost:.1%} of a channel lost")
    assert lost > worst if worst else lost < 0.01

photo, radius, eps = data.astronaut().astype(np.float32) / 255, 8, 1e-4
bright = (photo.mean(-1) > 0.5).astype(np.float32)
unit = cv2.ximgproc.guidedFilter(photo, bright, radius, eps)
scaled = cv2.ximgproc.guidedFilter(255 * photo, bright, radius, 255**2 * eps)
blurred = bright
for _ in range(2):
    blurred = cv2.blur(blurred, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)
edges = (blurred > 0) & (blurred < 1)
ignored = [(np.abs(each - blurred) < 1e-5)[edges].mean() for each in (unit, scaled)]
flipped = ((unit > 0.5) != (scaled > 0.5)).mean()
print(f"photo, where the mask has edges: a box in {ignored[0]:.1%} by 0..1, in {ignored[1]:.1%} by 0..255", end="; ")
print(f"{flipped:.1%} of the mask differs")
assert ignored[0] > 0.75
assert ignored[1] < 0.01
assert flipped > 0.05
CASE
"$folder/venv/bin/python" "$folder/case.py"
