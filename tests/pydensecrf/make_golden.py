"""Write golden.npz: what pydensecrf itself answers to the problems of cases.py.

    pip install pydensecrf2 && python -m tests.pydensecrf.make_golden

Labels are kept for every point, marginals for every 16th pixel as multiples of 1/65535.
"""

import importlib
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from tests.pydensecrf.cases import (
    ITERATIONS,
    NORMALIZATIONS,
    PARAMETERS,
    compatibilities,
    marginals,
    problem,
    run_script,
    strokes,
    volume,
)

HEIGHT, WIDTH = 60, 80
SAMPLE = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)[2::4, 1::4].ravel()


def main() -> None:
    densecrf = importlib.import_module("pydensecrf.densecrf")
    utils = importlib.import_module("pydensecrf.utils")
    photo = np.ascontiguousarray(data.astronaut()[60 : 60 + HEIGHT, 150 : 150 + WIDTH])  # NASA, public domain
    golden: dict[str, np.ndarray] = {"photo": photo, "sample": SAMPLE}
    for labels in (2, 21):
        case = problem(photo, labels)
        for parameters in PARAMETERS:
            for normalization in NORMALIZATIONS:
                for n, q in zip(ITERATIONS, marginals(densecrf, case, parameters, normalization), strict=True):
                    key = f"{labels}/{parameters}/{normalization}/{n}"
                    golden[f"{key}/labels"] = q.argmax(axis=0).astype(np.uint8)
                    golden[f"{key}/marginals"] = np.rint(q[:, SAMPLE] * 65535).astype(np.uint16)
    for name, compat in compatibilities(3).items():
        for normalization in NORMALIZATIONS:
            q, divergence = volume(densecrf, utils, compat, normalization)
            golden[f"volume/{name}/{normalization}"] = q
            golden[f"volume/{name}/{normalization}/divergence"] = np.array(divergence)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Image.fromarray(photo).save("photo.png")
        Image.fromarray(strokes(HEIGHT, WIDTH)).save("strokes.png")
        results = run_script("pydensecrf")
        golden["script/labels"] = np.array(results["by_inference"], np.uint8)
        golden["script/divergence"] = np.array(results["divergence"])
        os.chdir(Path(__file__).parent)
    np.savez_compressed(Path(__file__).with_name("golden.npz"), **golden)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
