"""The paper's three rows on CamVid: the network alone, with a separate CRF, and both trained end to end.

    python docs/experiments/camvid/run.py --data PATH_TO/camvid --out runs/camvid [--seeds 0 1 2]

For each seed one network is trained, and from there two go on for the same number of updates: the network alone, and
network and CRF-RNN as one. The separate CRF stands behind the first of them; its parameters are what `crfrnn.fit` finds
on the validation split. Test figures are computed once, at the end. A run that was interrupted goes on.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from crfrnn import CRFRNN, fit
from crfrnn.commands.evaluate.evaluate import measure
from crfrnn.data.config import read_data_config
from crfrnn.data.datasets import SegmentationDataset
from crfrnn.data.splits import open_split
from crfrnn.networks.network import SegmentationNetwork

HERE = Path(__file__).parent
ROWS = ("network alone", "separate CRF", "end to end")


def train(recipe: dict, stage: str, start: Path | None, out: Path, seed: int) -> Path:
    """One stage by itself, from the weights in `start`: the folder of its network."""
    chosen = {**recipe, "stages": [entry for entry in recipe["stages"] if entry["name"] == stage]}
    if start is not None:
        chosen["network"] = {**recipe["network"], "weights": str(start)}
    out.mkdir(parents=True, exist_ok=True)
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(chosen, sort_keys=False))
    command = ["train", "--config", str(config), "--seed", str(seed), "--out", str(out)]
    subprocess.run([sys.executable, "-m", "crfrnn", *command], check=True)
    return out / "model" if start is None else final(out, stage)


def final(folder: Path, stage: str) -> Path:
    """The weights at the end of the schedule, not the best on `val`, where an early epoch may win by chance."""
    network = SegmentationNetwork.from_pretrained(folder / "model")
    state = torch.load(folder / stage / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    network.load_state_dict(weights)
    network.save_pretrained(folder / "final")
    return folder / "final"


def separate(network: SegmentationNetwork, val: SegmentationDataset, file: Path) -> CRFRNN:
    """The separate CRF: what `crfrnn.fit` finds on the network's outputs, kept in `file`."""
    if not file.exists():
        images, logits, truths = [], [], []
        with torch.inference_mode():
            for sample in (val[number] for number in range(len(val))):
                pictures = network.normalize(sample.image[None])
                images.append(network.guide(pictures)[0].round().byte())
                logits.append(network.unary_logits(pictures)[0])
                truths.append(sample.mask)
        found = fit(images, logits, truths, logits=True)
        print(found.verdict())
        file.write_text(found.parameters.as_yaml())
    return CRFRNN.from_config(file, len(val.classes)).eval()


def compare(folder: Path, alone: Path, trained: Path, data: Path) -> dict[str, Any]:
    """Fit the separate CRF to `val`, then measure all three rows on `test`; kept in `folder`."""
    kept = folder / "results.json"
    if kept.exists():
        return json.loads(kept.read_text())
    config = read_data_config(str(HERE / "recipe.yaml"), str(data))
    network, whole = (SegmentationNetwork.from_pretrained(str(path)) for path in (alone, trained))
    crf = separate(network, open_split(config, "val"), folder / "separate.yaml")
    test = open_split(config, "test")
    rows = measure(network, {ROWS[0]: None, ROWS[1]: crf}, test, "alone")
    rows += measure(whole, {ROWS[2]: whole.crf, "its network alone": None}, test, "trained")
    kept.write_text(json.dumps({result.crf: result.as_json(test.classes.names) for result in rows}, indent=2))
    return json.loads(kept.read_text())


def table(results: list[dict[str, Any]]) -> str:
    """Mean over the seeds, with the smallest and the largest, of the test figures."""
    lines = ["| | mIoU | pixel accuracy | mIoU within 5 pixels of a boundary |", "|---|---|---|---|"]
    for row in (*ROWS, "its network alone"):
        cells = []
        for read in (
            lambda r: r["mean_iou"],
            lambda r: r["pixel_accuracy"],
            lambda r: r["trimap_mean_iou"]["5"],
        ):
            values = [100 * read(result[row]) for result in results]
            cells.append(f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    recipe = yaml.safe_load((HERE / "recipe.yaml").read_text())
    recipe["data"]["root"] = str(options.data)
    results = []
    for seed in options.seeds:
        folder = options.out / f"seed{seed}"
        start = train(recipe, "network", None, folder / "network", seed)
        alone = train(recipe, "longer", start, folder / "longer", seed)
        trained = train(recipe, "end-to-end", start, folder / "end-to-end", seed)
        results.append(compare(folder, alone, trained, options.data))
        print(f"\nafter seed {seed}\n\n{table(results)}\n")


if __name__ == "__main__":
    main()
