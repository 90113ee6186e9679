"""At which size should the network, and at which the CRF, see a photo of another size than those they were trained on?

`python -m benchmarks.bm_photo_size --data configs/camvid.yaml --root PATH_TO/camvid --model camvid --every 4` scores
CamVid's photographs at their 480 x 360, with a model that was trained on smaller ones. With
`--scale 2` it scores copies of twice the size, and their labels with them.
"""

import argparse

import numpy as np
import torch
from torch import Tensor

from crfrnn import SegmentationNetwork
from crfrnn.commands.metrics import Evaluation
from crfrnn.data.config import read_data_config
from crfrnn.data.datasets.dataset import scale
from crfrnn.data.splits import open_split
from crfrnn.networks.models import load_model
from crfrnn.networks.unary.full_size import full_size

NEAR = 2  # pixels from a boundary
Row = tuple[str, Tensor]  # what was done, logits (1, L, H, W)


def ways(network: SegmentationNetwork, photo: np.ndarray) -> list[Row]:
    """Every way of labelling one photo (H, W, 3)."""
    size = photo.shape[:2]
    colours = torch.from_numpy(photo.copy()).movedim(2, 0)[None].float()
    logits = network.photo_logits(photo)
    small = torch.nn.functional.interpolate(colours, size=logits.shape[2:], mode="bilinear", antialias=True)
    large = network.photo_logits(photo, max(size))
    rows = [("network at its size", full_size(logits, size)), ("network at the photo's", large)]
    if network.crf is not None:
        grown = network.crf.scaled(max(size) / max(logits.shape[2:]))
        rows += [
            ("network and CRF at the network's size", full_size(network.crf(logits, small), size)),
            ("network at its size, CRF at the photo's", grown(full_size(logits, size), colours)),
            ("network and CRF at the photo's size", grown(large, colours)),
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a configuration with a section data:")
    parser.add_argument("--root", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--every", type=int, default=1, help="only every n-th photograph")
    parser.add_argument("--scale", type=float, default=1.0, help="of the photographs and their labels")
    options = parser.parse_args()
    network, _ = load_model(options.model)
    dataset = open_split(read_data_config(options.data, options.root), options.split)
    found: dict[str, Evaluation] = {}
    with torch.inference_mode():
        for index in range(0, len(dataset), options.every):
            _, image, mask = dataset.read(index)
            height, width = (round(options.scale * side) for side in mask.shape)
            image, mask = scale(image, mask, (width, height))
            for name, logits in ways(network, image.movedim(0, 2).numpy()):
                evaluation = found.setdefault(name, Evaluation(len(dataset.classes)))
                evaluation.add(logits[0].argmax(0), mask)
    print(f"| {options.split}, every {options.every} | mean IoU | within {NEAR} pixels of a boundary |\n|---|---|---|")
    for name, evaluation in found.items():
        near = evaluation.trimaps()[NEAR].mean_iou
        print(f"| {name} | {100 * evaluation.scores().mean_iou:.2f} | {100 * near:.2f} |")


if __name__ == "__main__":
    main()
