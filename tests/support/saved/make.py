"""Writes one small file of each kind that people keep, so that later versions can be tested to read it.

Uses only names of the package that stay, so that any version's code can run it; README.md says how.
"""

import importlib
import inspect
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from crfrnn import CRFRNN, Bilateral, SegmentationNetwork, Spatial, build_unary, solvers
from crfrnn.cli import main
from crfrnn.parameters import CRFParameters

LABELS, SIZE = 4, (12, 10)
KERNELS = (Bilateral(6, 40, weight=2), Spatial(1.5, weight=1))
LAYERS: dict[str, dict[str, Any]] = {
    "class weights": {},
    "scalar weights": {"kernel_weights": "scalar", "normalization": "symmetric"},
    "full weights": {"kernel_weights": "full", "normalization": "before"},
    "temperature": {"temperature": 0.6, "iterations": 2, "eval_iterations": 4},
    "learned bandwidths": {"learn_bandwidths": True},
    "a bandwidth for each axis": {
        "kernels": (Bilateral((6, 7), (40, 50, 60)), Spatial((1, 2))),
        "learn_bandwidths": True,
    },
    "without the self-connection": {"self_connection": False},
    "exact": {"kernels": (Bilateral(6, 40, weight=2, method="exact"), Spatial(1.5, method="exact"))},
    "accuracy 2": {"kernels": (Bilateral(6, 40, weight=2, accuracy=2),)},
    "damped, learned step": {"solver": solvers.DampedMeanField(0.7, learn_step=True)},
    "Frank-Wolfe, learned step": {"solver": solvers.EntropicFrankWolfe(lambda_=0.8, step=0.6, learn_step=True)},
}
CONFIG = """
data:
  name: folders
  root: scenes
  options: {classes: [ground, left, right]}
  workers: 0
network: {unary: small}
crf: {kernels: ["bilateral:8,30,3", "spatial:2,1"], iterations: 2, eval_iterations: 3}
stages:
  - {name: network, epochs: 2, batch_size: 2, learning_rate: 0.02}
  - {name: end-to-end, crf: trained, epochs: 3, batch_size: 2, learning_rate: 0.01}
hardware: {accelerator: cpu, save_minutes: 60}
"""


class Small(nn.Module):
    """Two convolutions with everything that has a state or draws at random: batch normalisation and dropout."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.recipe = {"name": "small", "num_classes": num_classes}
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.1)
        )
        self.classifier = nn.Conv2d(6, num_classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.layers(image))


def build_layer(name: str) -> CRFRNN:
    return CRFRNN(LABELS, **{"kernels": KERNELS, **LAYERS[name]})


def register() -> None:
    """`Small` among the networks that have a name, wherever this version keeps their table."""
    importlib.import_module(build_unary.__module__).UNARIES["small"] = Small


def make_scenes(folder: Path) -> None:
    """Five photographs of 32 x 24 pixels with two rectangles each, and their masks."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    (folder / "train.txt").write_text("0\n1\n2\n3\n")
    (folder / "val.txt").write_text("4\n")
    for number in range(5):
        mask = np.zeros((24, 32), np.uint8)
        mask[4 + number : 14 + number, 3:14] = 1
        mask[16 - 2 * number : 24 - 2 * number, 18:29] = 2
        rows, columns = np.indices(mask.shape)
        photo = 60 * mask[..., None] + 40 + 7 * ((rows + 2 * columns + number) % 5)[..., None] * np.array([1, 2, 3])
        Image.fromarray(photo.astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")


def _moved(module: nn.Module) -> None:
    """Every parameter a little away from its initial value."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))


def _save_layers(path: Path) -> None:
    torch.manual_seed(1)
    logits, image = 2 * torch.randn(1, LABELS, *SIZE), 255 * torch.rand(1, 3, *SIZE)
    saved: dict[str, Any] = {"logits": logits, "image": image, "layers": {}}
    for name in LAYERS:
        layer = build_layer(name)
        _moved(layer)
        with torch.no_grad():
            training, evaluation = layer.train()(logits, image), layer.eval()(logits, image)
        saved["layers"][name] = {"state": layer.state_dict(), "training": training, "evaluation": evaluation}
    torch.save(saved, path)


def _save_network(folder: Path) -> None:
    torch.manual_seed(2)
    network = SegmentationNetwork(Small(LABELS), build_layer("damped, learned step"), class_names=list("abcd")).eval()
    _moved(network)
    network.save_pretrained(folder)
    images = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        torch.save({"images": images, "logits": network(images)}, folder / "output.pt")


def _save_interrupted_run(folder: Path) -> None:
    """`crfrnn train`, stopped by Ctrl-C in the second epoch of the second stage; and where it comes to from there."""
    make_scenes(Path("scenes"))
    Path("config.yaml").write_text(CONFIG)
    command = ["train", "--config", "config.yaml", "--out", str(folder)]
    batches = 0

    def stop(network: nn.Module, _: Any) -> None:
        nonlocal batches
        at_batch = isinstance(network, Small) and network.training
        batches += at_batch
        if at_batch and batches == 7:  # two epochs of two batches, one more in the second stage, and one batch
            os.kill(os.getpid(), signal.SIGINT)

    hook = nn.modules.module.register_module_forward_pre_hook(stop)
    assert main(command) == 130
    hook.remove()
    shutil.copytree(folder, "finished")
    assert main([*command[:-1], "finished"]) == 0
    shutil.copy("finished/model/model.safetensors", folder.with_name("finished.safetensors"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1]).resolve()
    out.mkdir(parents=True)
    print("by", inspect.getfile(CRFRNN))
    register()
    _save_layers(out / "layers.pt")
    _save_network(out / "network")
    chosen = CRFParameters(
        KERNELS, "symmetric", 0.6, 7, ((1.0, 2.2, 0.5, 1.0), (1.0, 1.9, 0.7, 1.1)), {"images": 3, "verdict": "it helps"}
    )
    (out / "crf.yaml").write_text(chosen.as_yaml())
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        _save_interrupted_run(out / "run")
    for card in out.rglob("README.md"):  # nothing reads them
        card.unlink()
