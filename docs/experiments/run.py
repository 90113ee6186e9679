"""The paper's three rows: the network alone, with a separate CRF, and both trained end to end.

    python docs/experiments/run.py RECIPE.yaml --data TRAINING_SET --out runs/NAME [--test TEST_SET] [--seeds 0 1 2]

The recipe's last two stages are called `longer` and `end-to-end`. For each seed a network is trained with those before
them, and from there two go on for as many updates: the network alone, and network and CRF-RNN as one. The
separate CRF stands behind the first of the two, with what `crfrnn.fit` finds on the validation split. Test
figures are computed once, at the end: on the split `test`, or on all of TEST_SET. A run that was interrupted goes on.

A recipe with `rows` has those instead (scribbles/camvid.yaml): each has a name, its `stages`, the row `after` which it
goes on, and `full: true` where it is trained on the data of `--full`, not of `--data`. All are compared with `base`.

Further arguments are those of `crfrnn train`, such as `--hardware.precision bf16-mixed`.
"""

import argparse
import re
import statistics
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from torch import Tensor

from crfrnn import CRFRNN, fit
from crfrnn.commands.gain import gain
from crfrnn.commands.metrics import Evaluation, class_counts, scores
from crfrnn.data.config import read_data_config
from crfrnn.data.datasets import SegmentationDataset
from crfrnn.data.splits import open_split
from crfrnn.networks.network import SegmentationNetwork

ALONE, SEPARATE, TRAINED, WITHOUT = "network alone", "separate CRF", "end to end", "its network without the CRF"
NEAR = 5  # pixels from a boundary

Counts = dict[str, dict[str, Tensor]]  # by row and place: (N, L, L), a confusion matrix for each image


def train(recipe: dict, names: list[str], start: Path | None, out: Path, further: list[str]) -> None:
    """These stages of the recipe, from the weights in `start`, into `out`."""
    chosen = {**recipe, "stages": [stage for stage in recipe["stages"] if stage["name"] in names]}
    chosen.pop("rows", None)
    if start is not None:
        chosen["network"] = {**recipe["network"], "weights": str(start)}
    out.parent.mkdir(parents=True, exist_ok=True)
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(chosen, sort_keys=False))
    command = ["train", "--config", str(config), "--out", str(out), *further]
    subprocess.run([sys.executable, "-m", "crfrnn", *command], check=True)


def final(folder: Path, stage: str) -> SegmentationNetwork:
    """The network at the end of the schedule, not the best on `val`, where an early epoch may win by chance."""
    network = SegmentationNetwork.from_pretrained(folder / "model")
    state = torch.load(folder / stage / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}
    network.load_state_dict(weights)
    network.save_pretrained(folder / "final")
    return network.eval()


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


def count(network: SegmentationNetwork, crfs: dict[str, CRFRNN | None], test: SegmentationDataset) -> Counts:
    """What network and CRFs say of every image; the network runs once for each."""
    found = {row: {"everywhere": [], "near": []} for row in crfs}
    with torch.inference_mode():
        for sample in (test[number] for number in range(len(test))):
            pictures = network.normalize(sample.image[None])
            logits, guide = network.unary_logits(pictures).float(), network.guide(pictures)
            for row, crf in crfs.items():
                labels = (logits if crf is None else crf(logits, guide))[0].argmax(0)
                evaluation = Evaluation(len(test.classes), radii=(NEAR,))
                evaluation.add(labels, sample.mask)
                found[row]["everywhere"].append(evaluation.counts.sum(0))
                found[row]["near"].append(evaluation.counts[: NEAR + 1].sum(0))
    return {row: {place: torch.stack(counts) for place, counts in places.items()} for row, places in found.items()}


def rows(folder: Path, val: SegmentationDataset, test: SegmentationDataset) -> Counts:
    """All rows of one seed on `test`, kept in `folder`."""
    kept = folder / "counts.pt"
    if not kept.exists():
        network, whole = final(folder / "longer", "longer"), final(folder / "end-to-end", "end-to-end")
        crf = separate(network, val, folder / "separate.yaml")
        counts = count(network, {ALONE: None, SEPARATE: crf}, test)
        counts |= count(whole, {TRAINED: whole.crf, WITHOUT: None}, test)
        torch.save(counts, kept)
    return torch.load(kept, weights_only=True)


def own_rows(recipe: dict, full: Path | None, folder: Path, test: SegmentationDataset, further: list[str]) -> Counts:
    """The rows that a recipe names, trained one after the other; those of one seed on `test`, kept in `folder`."""
    counts: Counts = {}
    for name, row in recipe["rows"].items():
        place, after = folder / _slug(name), row.get("after")
        kept = place / "counts.pt"
        if not kept.exists():
            root = str(full) if row.get("full") else recipe["data"]["root"]
            start = folder / _slug(after) / "final" if after else None
            train({**recipe, "data": {**recipe["data"], "root": root}}, row["stages"], start, place, further)
            network = final(place, row["stages"][-1])
            torch.save(count(network, {name: network.crf}, test), kept)
        counts |= torch.load(kept, weights_only=True)
    return counts


def _slug(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-")


def table(seeds: list[Counts]) -> str:
    """Mean over the seeds, with the smallest and the largest."""
    lines = [f"| | mIoU | pixel accuracy | mIoU within {NEAR} pixels of a boundary |", "|---|---|---|---|"]
    for row in seeds[0]:
        everywhere, near = ([scores(seed[row][place].sum(0)) for seed in seeds] for place in ("everywhere", "near"))
        columns = (
            [one.mean_iou for one in everywhere],
            [one.pixel_accuracy for one in everywhere],
            [one.mean_iou for one in near],
        )
        cells = [
            f"{100 * statistics.mean(values):.2f} ({100 * min(values):.2f} to {100 * max(values):.2f})"
            for values in columns
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gains(seed: Counts, pairs: list[tuple[str, str]]) -> str:
    """What one seed gains in mIoU, with the 95 % interval of a bootstrap over the images; (row, other) each."""

    def counts(row: str, place: str) -> Tensor:
        return torch.stack([class_counts(confusion) for confusion in seed[row][place]])

    return "\n".join(
        f"{row} over {other}, {place}: {gain(counts(row, place), counts(other, place))}"
        for row, other in pairs
        for place in ("everywhere", "near")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--full", type=Path, help="the data set with full masks, for rows that are trained on it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options, further = parser.parse_known_args()
    recipe = yaml.safe_load(options.recipe.read_text())
    recipe["data"]["root"] = str(options.data)
    own, before = recipe.get("rows"), [stage["name"] for stage in recipe["stages"]][:-2]
    if own and options.full is None and any(row.get("full") for row in own.values()):
        parser.error("--full is missing: a row of this recipe is trained on full masks")
    config = read_data_config(options.recipe, str(options.data))
    val = open_split(config, config.val)
    test = open_split(
        read_data_config(options.recipe, str(options.test or options.data)), "all" if options.test else config.test
    )
    if own:
        base = next(name for name, row in own.items() if row.get("base"))
        pairs = [(name, base) for name in own if name != base]
    else:
        pairs = [(TRAINED, ALONE), (TRAINED, SEPARATE), (SEPARATE, ALONE)]
    results = []
    for seed in options.seeds:
        folder, arguments = options.out / f"seed{seed}", ["--seed", str(seed), *further]
        if own:
            results.append(own_rows(recipe, options.full, folder, test, arguments))
        else:
            train(recipe, before, None, folder / "network", arguments)
            final(folder / "network", before[-1])
            for stage in ("longer", "end-to-end"):
                train(recipe, [stage], folder / "network" / "final", folder / stage, arguments)
            results.append(rows(folder, val, test))
        print(f"\nseed {seed}\n\n{gains(results[-1], pairs)}\n\nafter seed {seed}\n\n{table(results)}\n", flush=True)


if __name__ == "__main__":
    main()
