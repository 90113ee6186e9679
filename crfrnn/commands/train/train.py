"""`crfrnn train`: a recipe in, networks out; the same command goes on where it was interrupted."""

import dataclasses
import importlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crfrnn.commands.check_data.check import check, describe
from crfrnn.commands.errors import UsageError
from crfrnn.commands.progress import say
from crfrnn.commands.train.options import StageConfig, TrainOptions
from crfrnn.commands.train.recipe import (
    build_crf,
    build_network,
    crf_parameters,
    load_initial,
    reach_note,
    settings_that_differ,
)
from crfrnn.commands.train.stage.loss import StageLoss
from crfrnn.commands.train.stage.run import LAST, Interrupted, StageRun, UnreadableSample, export
from crfrnn.data.augmentation import seed_for
from crfrnn.data.datasets import SegmentationDataset
from crfrnn.data.files import is_part, writing
from crfrnn.data.splits import open_split
from crfrnn.networks.network import SegmentationNetwork
from crfrnn.networks.saved import read_config

RECIPE, HISTOGRAM, DONE, MODEL = "recipe.json", "classes.json", "done.json", "model"
USUAL = dataclasses.asdict(StageConfig("usual", epochs=1))


def train(options: TrainOptions) -> None:
    """What the options ask for; UsageError, before anything is read, where they make no CRF or no loss."""
    try:
        build_crf(options.crf, num_classes=2)
        for stage in options.stages:
            StageLoss(stage.loss)
    except ValueError as error:
        raise UsageError(str(error)) from None
    data, seed = options.data, options.seed
    run_stage = _load_lightning()
    folder = Path(options.out)
    training, validation = open_split(data, data.train), open_split(data, data.val)
    if _is_main_process():
        _prepare(folder, options)
        _check_files(folder, options, training)
    while not (folder / HISTOGRAM).exists():  # the first machine writes it, into a folder that all of them see
        time.sleep(1)
    previous: Path | None = None
    for number, stage in enumerate(options.stages):
        weights = _class_weights(stage, folder)
        run = StageRun(stage, number, seed, data, options.hardware, folder / stage.name, weights)
        run.folder.mkdir(parents=True, exist_ok=True)
        if not (run.folder / DONE).exists():
            torch.manual_seed(seed_for(seed, number))
            built = build_network(options, stage, training.classes)
            if previous is not None:
                load_initial(built, str(previous))
            _run(run_stage, built, run, training, validation)
        previous = run.best
    if _is_main_process() and previous is not None:
        export(SegmentationNetwork.from_pretrained(previous), folder / MODEL)
        for stage in options.stages:
            done = json.loads((folder / stage.name / DONE).read_text())
            say(f"{stage.name}: validation mIoU {done['mean_iou']:.2%} after {done['epochs']} epochs")
        say(f"wrote {folder / MODEL}; crfrnn evaluate {folder / MODEL} --data CONFIG measures it")


def _run(
    run_stage: Callable[..., tuple[float, int]], built: SegmentationNetwork, run: StageRun, *splits: SegmentationDataset
) -> None:
    """One stage; what stops it becomes one line."""
    try:
        best, epochs = run_stage(built, run, *splits)
    except (UnreadableSample, Interrupted) as reason:
        if not _is_main_process():
            sys.exit(1)  # the main process stops for the same reason, and says it
        if isinstance(reason, Interrupted):
            raise KeyboardInterrupt(str(reason)) from None
        raise ValueError(f"{reason}; mend or remove it, and the same command goes on from here") from None
    if _is_main_process():
        with writing(run.folder / DONE) as file:
            file.write(json.dumps({"mean_iou": best, "epochs": epochs}).encode())


def _load_lightning() -> Callable[..., tuple[float, int]]:
    """`stage.fit.run_stage`, loaded when it is needed: Lightning is an extra, and slow to import."""
    try:
        importlib.import_module("lightning.pytorch")
    except ImportError as error:
        raise ValueError(f"train: needs Lightning ({error}): pip install 'crfrnn[train]'") from None
    return importlib.import_module("crfrnn.commands.train.stage.fit").run_stage


def _is_main_process() -> bool:
    """False in the processes that Lightning, torchrun or SLURM start besides the first one."""
    ranks = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def _prepare(folder: Path, options: TrainOptions) -> None:
    """The run's folder with the recipe in it; a ValueError where another recipe's run is there."""
    lasting = {name: value for name, value in dataclasses.asdict(options).items() if name not in ("out", "overwrite")}
    wanted = json.loads(json.dumps(lasting))
    stored = folder / RECIPE
    before = read_config(stored) if stored.exists() else None
    if before is None and folder.exists() and not all(map(is_part, folder.iterdir())):
        raise ValueError(f"out: {folder} holds other files; give a new folder")
    if before is not None and not {"stages", "data"} <= before.keys():
        raise ValueError(f"out: {stored} is no recipe of a training; give a new folder")
    begun = any((folder / stage["name"] / LAST).exists() for stage in before["stages"]) if before else False
    if before and begun and not options.overwrite:
        differing = list(settings_that_differ(_lasting(before), _lasting(wanted)))
        if differing:
            raise ValueError(
                f"out: {folder} holds a run of another recipe ({differing[0]}"
                + f" and {len(differing) - 1} more" * (len(differing) > 1)
                + "); give another --out, or --overwrite"
            )
        return
    for name in (*(stage["name"] for stage in (before or wanted)["stages"]), MODEL):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / HISTOGRAM).unlink(missing_ok=True)
    with writing(stored) as file:
        file.write(json.dumps(wanted, indent=2).encode())


def _lasting(recipe: dict[str, Any]) -> dict[str, Any]:
    """What may not change between a start and its continuation: all but where it runs and where the files are."""
    data = {name: value for name, value in recipe["data"].items() if name not in ("root", "workers")}
    kept = {name: value for name, value in recipe.items() if name != "hardware"}
    # what an older version did not know of a stage was as it is by default
    return kept | {"data": data, "stages": [USUAL | stage for stage in recipe["stages"]]}


def _check_files(folder: Path, options: TrainOptions, training: SegmentationDataset) -> None:
    """Read every file once before the first epoch; a later continuation relies on that."""
    if (folder / HISTOGRAM).exists():
        return
    data = options.data
    reports, problems = check(data, (data.train, data.val))
    if problems:
        rest = f" and {len(problems) - 1} more; crfrnn data check CONFIG lists them" if len(problems) > 1 else ""
        raise ValueError(f"data: {problems[0]}{rest}")
    say(describe(reports, training.classes.names))
    note = reach_note(crf_parameters(options.crf), data.size, reports[0].sizes)
    if note and any(stage.crf != "none" for stage in options.stages):
        say(f"note: {note}")
    with writing(folder / HISTOGRAM) as file:
        file.write(json.dumps({"pixels": reports[0].histogram.tolist()}).encode())


def _class_weights(stage: StageConfig, folder: Path) -> Tensor | None:
    """(L,): 1 / log(1.02 + share of the class in the training split), or None."""
    if stage.class_weights == "none":
        return None
    pixels = json.loads((folder / HISTOGRAM).read_text())["pixels"]
    return torch.tensor([1 / math.log(1.02 + count / sum(pixels)) for count in pixels])
