"""The drop-in for the compiled `bilateralfilter`: its numbers, its arrays, an error where it crashed."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from crfrnn import Bilateral
from crfrnn.bilateralfilter import bilateralfilter, bilateralfilter_batch
from tests.support.compare import assert_approximates, assert_equal
from tests.support.each import each
from tests.support.places import ROOT
from tests.support.problems import photo

N, K, H, W = 2, 2, 4, 5
SIGMA_RGB, SIGMA_XY = 60.0, 3.0
IMAGES = (np.arange(N * 3 * H * W) * 37.3 % 256).astype(np.float32)
SEGS = (np.arange(N * K * H * W) * 0.37 % 1).astype(np.float32)
# What the compiled original (meng-tang/rloss, g++ 12 -O3) makes of them, six digits.
ORIGINAL = """
0.248586 0.414079 0.92521 1.09801 0.786921 0.980884 0.656919 0.318978 0.533906 0.895068 1.28601 1.07882 1.01221 0.607217
0.267985 0.725591 1.22247 1.18448 0.9652 0.566509 0.724796 0.402594 0.778691 1.15549 1.01078 0.949179 0.642381 0.78439
0.393756 0.834983 0.998725 1.19656 1.12757 0.547262 0.641495 0.792425 1.01051 1.16517 1.0972 0.742016 1.18183 0.777337
0.422064 0.737984 0.984644 1.33924 1.18086 1.37258 0.880226 0.41624 0.776986 1.43229 1.50106 1.19693 1.17908 0.74904
0.470545 0.861732 1.31385 1.02856 0.876311 0.682724 0.585014 0.703677 0.989361 0.855127 0.845073 1.04566 0.68463
0.582504 1.00277 1.33963 1.12556 0.850096 0.832874 0.818014 0.410596 1.04007 1.31205 0.754027
"""


def batch(images: Any = IMAGES, segs: Any = SEGS) -> np.ndarray:
    sums = np.zeros(N * K * H * W, np.float32)
    bilateralfilter_batch(images, segs, sums, N, K, H, W, SIGMA_RGB, SIGMA_XY)
    return sums


@each("threads", [1, 2, 3])
def test_the_originals_numbers(threads, torch_threads):
    torch_threads(threads)
    assert_equal("AS", batch(), np.array(ORIGINAL.split(), float), 1e-5)


def test_bit_equal_for_any_number_of_threads(torch_threads):
    images = np.concatenate([photo("coffee").numpy().ravel(), photo("rocket").numpy().ravel()]).astype(np.float32)
    segs, runs = np.random.default_rng(0).random(2 * 3 * 72 * 96, np.float32), []
    for threads in (1, 2, 5):
        torch_threads(threads)
        runs.append(np.zeros_like(segs))
        bilateralfilter_batch(images, segs, runs[-1], 2, 3, 72, 96, 15.0, 40.0)
    assert all((run == runs[0]).all() for run in runs)


@each("more", [(), (K,)])
def test_one_image(more):
    sums = np.zeros(K * H * W, np.float32)
    bilateralfilter(IMAGES[: 3 * H * W], SEGS[: K * H * W], sums, H, W, *more, SIGMA_RGB, SIGMA_XY)
    assert_equal("AS", sums, batch()[: K * H * W], 0)


@each("sigmas", [(30.0, 10.0), (60.0, 20.0), (120.0, 40.0)])
def test_the_sum_over_pairs(sigmas):
    """By brute force, times 0.7055, within what a lattice is off on 32 x 24 pixels.

    Sums: 23, 27 and 33 %, as mass beyond the outermost vertices is lost. Divided by the sums of ones, what is left is
    4.0, 4.9 and 1.2 %.
    """
    image = photo("coffee")[:, :, ::3, ::3].contiguous()
    height, width = image.shape[2:]
    segs = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    segs[0], segs[1, :, :16] = 1, 0
    sums = np.zeros(segs.numel(), np.float32)
    bilateralfilter(image.numpy().ravel(), segs.numpy().ravel(), sums, height, width, *sigmas)
    y, x = np.mgrid[:height, :width].reshape(2, -1) / sigmas[1]
    features = np.concatenate([[y, x], image[0].flatten(1).double().numpy() / sigmas[0]])
    k = np.exp(-0.5 * ((features[:, :, None] - features[:, None]) ** 2).sum(axis=0))
    got, expected = sums.reshape(3, -1).astype(float), 0.7055 * (segs.flatten(1).double().numpy() @ k)
    assert_approximates("AS", got, expected, per_cent=35)
    assert_approximates("AS by that of ones", got[1] / got[0], expected[1] / expected[0], per_cent=6)


def test_other_arrays_than_flat_float32():
    shaped = batch(IMAGES.reshape(N, 3, H, W).astype(np.float64), SEGS.reshape(N, K, H, W).tolist())
    assert_equal("AS", shaped, batch(), 0)
    colours = IMAGES.astype(np.uint8)
    assert_equal("AS", batch(colours), batch(colours.astype(np.float32)), 0)
    IMAGES.flags.writeable = False
    try:
        assert_equal("AS", batch(), shaped, 0)
    finally:
        IMAGES.flags.writeable = True
    tensor = torch.zeros(N, K, H, W)
    bilateralfilter_batch(torch.from_numpy(IMAGES), torch.from_numpy(SEGS), tensor, N, K, H, W, SIGMA_RGB, SIGMA_XY)
    assert_equal("AS", tensor.numpy().ravel(), shaped, 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({0: IMAGES[1:]}, "images: 119 numbers, expected 2 x 3 x 4 x 5 = 120"),
        ({1: SEGS[1:]}, "segs: 79 numbers, expected 2 x 2 x 4 x 5 = 80"),
        ({2: np.zeros(81, np.float32)}, "AS: 81 numbers, expected 2 x 2 x 4 x 5 = 80"),
        ({2: np.zeros(80)}, "AS: the sums go into it, so it must be float32 in one piece, got float64 (80,)"),
        ({2: np.zeros(160, np.float32)[::2]}, "AS: the sums go into it, so it must be float32 in one piece"),
        ({2: [0.0] * 80}, "AS: the sums go into it, so it must be float32 in one piece, got list"),
        ({0: IMAGES * np.float32("nan")}, "images: NaN or infinity"),
        ({1: SEGS + np.float32("inf")}, "segs: NaN or infinity"),
        ({3: 0}, "N: expected a whole number of at least 1, got 0"),
        ({6: 5.5}, "W: expected a whole number of at least 1, got 5.5"),
        ({7: 0.0}, "sigma_rgb: a bandwidth must be positive"),
        ({8: -1.0}, "sigma_xy: a bandwidth must be positive"),
    ],
)
def test_errors_where_the_original_crashed(changes, said):
    given = [IMAGES, SEGS, np.zeros(80, np.float32), N, K, H, W, SIGMA_RGB, SIGMA_XY]
    with pytest.raises(ValueError, match=re.escape(said)):
        bilateralfilter_batch(*(changes.get(place, value) for place, value in enumerate(given)))


def test_one_image_with_too_few_numbers():
    with pytest.raises(ValueError, match="expected \\(image, seg, AS, H, W, sigma_rgb, sigma_xy\\)"):
        bilateralfilter(IMAGES, SEGS, np.zeros_like(SEGS), H, W, SIGMA_XY)


def test_small_bandwidths_have_their_own_neighbours_alone():
    """The original's keys have 16 bits, and run over."""
    segs, sums = np.ones(H * W, np.float32), np.zeros(H * W, np.float32)
    bilateralfilter(IMAGES[: 3 * H * W], segs, sums, H, W, 0.01, 0.01)
    image = torch.from_numpy(IMAGES[: 3 * H * W].reshape(1, 3, H, W))
    diagonal = Bilateral(0.01, 0.01).prepare(image, normalization="none").operator.diagonal()
    assert diagonal is not None
    assert_equal("AS", sums, 0.7055355 * diagonal[0, 0].numpy(), 1e-5)


def test_the_alias_of_the_documents(tmp_path):
    """One line makes `import bilateralfilter` find the drop-in."""
    text = (ROOT / "docs/scribbles.md").read_text()
    (line,) = re.findall(r'echo "(.*)" > "\$\(python -c', text)
    (tmp_path / "bilateralfilter.py").write_text(line)
    code = "from bilateralfilter import bilateralfilter, bilateralfilter_batch as b; print(b.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "crfrnn.bilateralfilter"
