"""The network, its loss and its data, in the form in which Lightning takes them."""

import math
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor

from crfrnn.commands.metrics import confusion_matrix
from crfrnn.commands.train.recipe import build_optimiser, rate_factor
from crfrnn.commands.train.stage.loss import StageLoss
from crfrnn.commands.train.stage.run import Position, StageRun
from crfrnn.data.augmentation import seed_for
from crfrnn.data.datasets import SegmentationDataset
from crfrnn.data.loading import Batch, EpochBatches, batches_in_epoch, evaluation_loader, training_loader
from crfrnn.networks.network import SegmentationNetwork


class SegmentationTask(lightning.LightningModule):
    """The network, its loss and its optimiser."""

    confusion: Tensor
    loss_sum: Tensor

    def __init__(self, network: SegmentationNetwork, run: StageRun, position: Position, classes: int, batches: int):
        super().__init__()
        self.network = network
        self.run, self.position = run, position
        self.batches = batches  # of an epoch, in each process
        self.loss = StageLoss(run.stage.loss, run.class_weights)
        self.register_buffer("confusion", torch.zeros(classes, classes, dtype=torch.int64), persistent=False)
        self.register_buffer("loss_sum", torch.zeros(()), persistent=False)

    def configure_optimizers(self) -> Any:
        """SGD or AdamW; the learning rates follow the schedule from update to update."""
        run = self.run
        updates = run.stage.epochs * math.ceil(self.batches / run.stage.accumulate)
        optimiser = build_optimiser(self.network, run.stage)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda update: rate_factor(run.stage, update, updates))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """A frozen network keeps its batch statistics and drops nothing out."""
        if not any(parameter.requires_grad for parameter in self.network.unary.parameters()):
            self.network.unary.eval()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout and the like depend on the position alone."""
        run = self.run
        torch.manual_seed(seed_for(run.seed, run.number, self.position.epoch, self.position.batch, self.global_rank))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The stage's loss of the CRF's logits, and perhaps of the network's."""
        truth, images = batch.masks.long(), self.network.normalize(batch.images)
        unary = self.network.unary_logits(images)
        logits, guide = self.network.refine(unary, images), batch.images.float()
        loss = self.loss(logits, truth, guide)
        if self.run.stage.unary_loss and self.network.crf is not None:
            loss = loss + self.run.stage.unary_loss * self.loss(unary, truth, guide)
        self.loss_sum += loss.detach()
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(truth))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count, with as many iterations of the CRF as in use."""
        prediction = self.network(self.network.normalize(batch.images)).max(1).indices
        self.confusion += confusion_matrix(prediction, batch.masks, len(self.confusion))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The position takes the place of Lightning's counters; see the module's text."""
        del checkpoint["loops"]
        checkpoint["position"] = vars(self.position)
        checkpoint["loss_sum"] = self.loss_sum.item()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put `loss_sum` back; the position was read before, as the loop's length depends on it."""
        self.loss_sum.fill_(checkpoint["loss_sum"])


class SegmentationData(lightning.LightningDataModule):
    """Batches of the training split from the position on, and the validation split, for process `process`."""

    def __init__(
        self,
        train: SegmentationDataset,
        val: SegmentationDataset,
        run: StageRun,
        position: Position,
        trainer: lightning.Trainer,
    ):
        super().__init__()
        self.splits, self.stage_run, self.position = (train, val), run, position
        self.process, self.processes = trainer.global_rank, trainer.world_size
        self.pin = trainer.strategy.root_device.type == "cuda"

    @property
    def batches_in_epoch(self) -> int:
        """For each process."""
        return batches_in_epoch(len(self.splits[0]), self.stage_run.stage.batch_size, self.processes)

    def train_dataloader(self) -> Any:
        """Called anew for each epoch."""
        run, train, at = self.stage_run, self.splits[0], self.position
        seed, size = seed_for(run.seed, run.number), run.stage.batch_size
        batches = EpochBatches(len(train), size, seed, at.epoch, at.batch, self.process, self.processes)
        return training_loader(train, run.data.augmentation, batches, run.data.workers, self.pin)

    def val_dataloader(self) -> Any:
        """Every sample once over all processes."""
        return evaluation_loader(self.splits[1], self.stage_run.data.workers, self.process, self.processes, self.pin)
