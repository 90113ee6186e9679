"""Whether an installed crfrnn works, in a folder without its checkout: `python -I smoke.py VERSION`."""

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import crfrnn
import crfrnn.pydensecrf.densecrf as dcrf


def run(*words: str) -> str:
    """What the command prints; an error if it fails."""
    return subprocess.run(["crfrnn", *words], check=True, capture_output=True, text=True).stdout


def main(version: str) -> None:
    package = Path(crfrnn.__file__).parent
    assert "site-packages" in package.parts, package
    assert run("--version").strip() == f"crfrnn {version}"
    assert importlib.metadata.version("crfrnn") == version
    assert (package / "py.typed").exists()
    licences = importlib.metadata.files("crfrnn") or []
    assert sum("licenses" in file.parts for file in licences) == 2, "the code's licence and that of the models"

    rng = np.random.default_rng(0)
    left = np.arange(80) < 40
    photo = np.where(left[None, :, None], (200, 60, 40), (30, 90, 180)).repeat(60, 0).astype(np.uint8)
    odds = np.exp(np.where(left, 0.5, -0.5) + rng.normal(0, 1, (60, 80)))
    probabilities = np.stack([odds, np.ones_like(odds)]).astype(np.float32) / (1 + odds).astype(np.float32)
    truth = np.broadcast_to(~left, (60, 80))

    refined = crfrnn.refine(photo, probabilities).argmax(0)
    assert (refined == truth).mean() > 0.95 > (probabilities.argmax(0) == truth).mean()

    layer = crfrnn.CRFRNN(2)
    image = torch.from_numpy(photo).movedim(-1, 0)[None]
    layer(torch.from_numpy(probabilities).log()[None], image)[:, 0].mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())

    crf = dcrf.DenseCRF2D(80, 60, 2)
    crf.setUnaryEnergy(-np.log(probabilities).reshape(2, -1))
    crf.addPairwiseBilateral(sxy=20, srgb=20, rgbim=photo, compat=5)
    assert (np.argmax(crf.inference(5), axis=0).reshape(60, 80) == truth).mean() > 0.95

    with tempfile.TemporaryDirectory() as folder:
        paths = {name: f"{folder}/{name}" for name in ("photo.png", "p.npy", "refined.png", "segmented.png")}
        Image.fromarray(photo).save(paths["photo.png"])
        np.save(paths["p.npy"], probabilities)
        run("refine", paths["photo.png"], "--probabilities", paths["p.npy"], "--out", paths["refined.png"])
        assert (np.asarray(Image.open(paths["refined.png"])) == refined).all()
        run("segment", paths["photo.png"], "--out", paths["segmented.png"])  # the model in the package, offline
        assert Image.open(paths["segmented.png"]).size == (80, 60)
    print(f"crfrnn {version} works: Python {sys.version.split()[0]}, torch {torch.__version__}, numpy {np.__version__}")


if __name__ == "__main__":
    main(sys.argv[1])
