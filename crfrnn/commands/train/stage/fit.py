"""Lightning's trainer for one stage, from the last state to the end."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.loggers import TensorBoardLogger

from crfrnn.commands.train.stage.keeper import Bar, Keeper
from crfrnn.commands.train.stage.run import Position, StageRun
from crfrnn.commands.train.stage.task import SegmentationData, SegmentationTask
from crfrnn.data.datasets import SegmentationDataset
from crfrnn.networks.network import SegmentationNetwork


def run_stage(
    network: SegmentationNetwork, run: StageRun, train: SegmentationDataset, val: SegmentationDataset
) -> tuple[float, int]:
    """Train one stage to its end, from ``last.ckpt`` where there is one.

    Returns the best validation mIoU and the epochs it took, and leaves the best network in the stage's folder.
    Raises UnreadableSample and Interrupted; the state is saved then.
    """
    position = _position(run.last)
    bar = sys.stderr.isatty()
    keeper = Keeper(run, print)
    trainer = _trainer(run, position, keeper, bar)
    if bar and isinstance(trainer.progress_bar_callback, Bar):
        keeper.say = trainer.progress_bar_callback.print
    if position.epoch >= run.stage.epochs:  # killed between the last state and the next stage
        keeper.load_state_dict(_checkpoint(run.last)["callbacks"][keeper.state_key])
        return keeper.best, len(keeper.rows)
    data = SegmentationData(train, val, run, position, trainer)
    task = SegmentationTask(network, run, position, len(train.classes), data.batches_in_epoch)
    resume = str(run.last) if run.last.exists() else None
    with warnings.catch_warnings(), keeper.listening():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        try:
            trainer.fit(task, datamodule=data, ckpt_path=resume, weights_only=True)
        except SystemExit:  # what Lightning makes of a second Ctrl-C, and of SIGTERM
            raise KeyboardInterrupt("interrupted; the same command goes on from the last saved state") from None
    return keeper.best, len(keeper.rows)


def _trainer(run: StageRun, position: Position, keeper: Keeper, bar: bool) -> lightning.Trainer:
    hardware = run.hardware
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logger: Any = False
    if hardware.log == "tensorboard":
        try:
            logger = TensorBoardLogger(run.folder.parent, name="tensorboard", version="")
        except ModuleNotFoundError:
            raise ValueError("hardware.log: tensorboard is not installed: pip install tensorboard") from None
    try:
        return lightning.Trainer(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            num_nodes=hardware.machines,
            strategy=hardware.strategy,
            precision=hardware.precision,  # pyright: ignore[reportArgumentType]
            sync_batchnorm=hardware.sync_batchnorm,
            max_epochs=max(1, run.stage.epochs - position.epoch),
            accumulate_grad_batches=run.stage.accumulate,
            gradient_clip_val=run.stage.gradient_clip or None,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,  # the samplers here share the samples themselves
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=bar,
            logger=logger,
            plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
            callbacks=[keeper, Bar(leave=False)] if bar else [keeper],
            default_root_dir=run.folder,
        )
    except Exception as error:  # Lightning has several kinds for hardware that is not there
        raise ValueError(f"hardware: {' '.join(str(error).split())}") from None


def _position(last: Path) -> Position:
    return Position(**_checkpoint(last)["position"]) if last.exists() else Position()


def _checkpoint(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises what it likes on a file that is cut short
        raise ValueError(f"{path}: not a readable checkpoint ({' '.join(str(error).split())[:120]})") from None
