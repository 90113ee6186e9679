"""What a training keeps, and how it stops."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException

from crfrnn.commands.metrics import scores
from crfrnn.commands.train.stage.run import Interrupted, Position, StageRun, UnreadableSample, export
from crfrnn.data.files import writing
from crfrnn.data.loading import Batch

COLUMNS = ("epoch", "update", "learning_rate", "loss", "mean_iou", "pixel_accuracy", "seconds")
DIVERGED = 1e9  # no parameter of a network comes so far
FINE, SAVE, STOP, UNREADABLE = range(4)  # what a process wishes for; the strongest wish of all is done by all


class Keeper(Callback):
    """Keeps what must not be lost: the last state, the best network, the log; and stops in good order."""

    def __init__(self, run: StageRun, say: Callable[[str], None]):
        self.run, self.say = run, say
        self.rows: list[dict[str, Any]] = []
        self.best, self.waited = -1.0, 0
        self.asked_to_stop = False
        self.saved_at = self.began_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.best, self.waited = (state_dict[name] for name in ("rows", "best", "waited"))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.saved_at = self.began_at = time.monotonic()
        trainer.should_stop = self._patience_is_over()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Before the batch is used: everything is as the batch before left it, so here the state can be saved."""
        due = time.monotonic() - self.saved_at >= 60 * self.run.hardware.save_minutes
        wish = UNREADABLE if batch.problem else STOP if self.asked_to_stop else SAVE if due else FINE
        wish = self._strongest(trainer, pl_module, wish)
        can_save = self._can_save(pl_module)
        if wish > FINE and can_save:
            self._save(trainer, pl_module)
        if wish == UNREADABLE:
            self._name_the_file(trainer, batch)
        if wish == STOP and can_save:
            raise Interrupted(self._where(pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        pl_module.position.batch += 1

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """A wish to stop waits for the end of the validation, so that what was trained is saved."""
        if self._strongest(trainer, pl_module, UNREADABLE if batch.problem else FINE) == UNREADABLE:
            self._name_the_file(trainer, batch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """After the validation: the log, the best network, the state, early stopping, in this order."""
        confusion = trainer.strategy.reduce(pl_module.confusion, reduce_op="sum")
        result = scores(confusion)
        loss = trainer.strategy.reduce(pl_module.loss_sum, reduce_op="mean").item() / pl_module.position.batch
        if not torch.isfinite(torch.tensor(loss)):
            raise ValueError(self._diverged(pl_module.position))
        self._log(trainer, pl_module.position, loss, result.mean_iou, result.pixel_accuracy)
        if result.mean_iou > self.best:
            self.best, self.waited = result.mean_iou, 0
            if trainer.is_global_zero:
                export(pl_module.network, self.run.best)
        else:
            self.waited += 1
        pl_module.confusion.zero_()
        pl_module.loss_sum.zero_()
        pl_module.position.epoch, pl_module.position.batch = pl_module.position.epoch + 1, 0
        self._save(trainer, pl_module)
        trainer.should_stop = self._patience_is_over()
        if self._strongest(trainer, pl_module, STOP if self.asked_to_stop else FINE) == STOP:
            raise Interrupted(self._where(pl_module))

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """A cluster's SIGTERM, which Lightning turns into this exception after a batch, on all processes; or a CRF that
        refuses the numbers of a network that has diverged."""
        sound = all((p.abs() < DIVERGED).all() for p in pl_module.network.parameters())  # no NaN is
        if isinstance(exception, ValueError) and not sound:
            raise ValueError(self._diverged(pl_module.position)) from exception
        if isinstance(exception, SIGTERMException) and self._can_save(pl_module):
            self._save(trainer, pl_module)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The first Ctrl-C asks for a stop in good order, the second one stops at once."""
        if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
            yield
            return

        def ask(number: int, frame: object) -> None:
            if self.asked_to_stop:
                raise KeyboardInterrupt
            self.asked_to_stop = True
            if rank_zero_only.rank == 0:
                print("stopping after this batch, and saving; once more stops at once", file=sys.stderr)

        former = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)

    def _strongest(self, trainer: Any, pl_module: Any, wish: int) -> int:
        """Of the wishes of all processes, which must do the same at the same batch."""
        if trainer.world_size == 1:
            return wish
        return int(trainer.strategy.reduce(torch.tensor(wish, device=pl_module.device), reduce_op="max"))

    def _name_the_file(self, trainer: Any, batch: Batch) -> NoReturn:
        problems = [batch.problem] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(problems, batch.problem)
        raise UnreadableSample(next(filter(None, problems)))

    def _can_save(self, pl_module: Any) -> bool:
        """Within an epoch, and not while gradients are being added up, which no checkpoint holds."""
        batch = pl_module.position.batch
        return 0 < batch < pl_module.batches and batch % self.run.stage.accumulate == 0

    def _patience_is_over(self) -> bool:
        return 0 < self.run.stage.patience <= self.waited

    def _save(self, trainer: Any, pl_module: Any) -> None:
        """last.ckpt, whole or as it was; a state that is not finite never replaces one that is."""
        if self._strongest(trainer, pl_module, int(not torch.isfinite(pl_module.loss_sum))):
            raise ValueError(self._diverged(pl_module.position))
        part = self.run.last.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            os.replace(part, self.run.last)
        self.saved_at = time.monotonic()

    def _log(self, trainer: Any, position: Position, loss: float, mean_iou: float, pixel_accuracy: float) -> None:
        seconds, self.began_at = time.monotonic() - self.began_at, time.monotonic()
        optimiser = trainer.optimizers[0]
        updates = trainer.lr_scheduler_configs[0].scheduler.last_epoch
        rate = optimiser.param_groups[0]["lr"]
        values = (position.epoch + 1, updates, rate, loss, mean_iou, pixel_accuracy, seconds)
        row: dict[str, Any] = dict(zip(COLUMNS, values, strict=True))
        self.rows = [*self.rows, row]
        for logger in trainer.loggers:
            logger.log_metrics({f"{self.run.stage.name}/{name}": row[name] for name in COLUMNS[2:]}, step=updates)
        if trainer.is_global_zero:
            lines = [",".join(COLUMNS), *(",".join(f"{row[name]:.6g}" for name in COLUMNS) for row in self.rows)]
            with writing(self.run.folder / "log.csv") as file:
                file.write("\n".join([*lines, ""]).encode())
            self.say(
                f"{self.run.stage.name}: epoch {position.epoch + 1} of {self.run.stage.epochs}, loss {loss:.4f},"
                f" validation mIoU {mean_iou:.2%} (best {max(self.best, mean_iou):.2%}), {seconds:.1f} s"
            )

    def _where(self, pl_module: Any) -> str:
        position = pl_module.position
        if position.epoch == self.run.stage.epochs:
            return f"interrupted at the end of stage {self.run.stage.name}; the same command goes on from there"
        return (
            f"interrupted in stage {self.run.stage.name}, epoch {position.epoch + 1} of {self.run.stage.epochs}, after"
            f" {position.batch} of {pl_module.batches} batches; the same command goes on from there"
        )

    def _diverged(self, position: Position) -> str:
        return (
            f"learning_rate: the loss of stage {self.run.stage.name} is no longer a number in epoch"
            f" {position.epoch + 1}; lower it, or set gradient_clip (the last good state is in {self.run.last})"
        )


class Bar(TQDMProgressBar):
    """Lightning's bar, which counts this stage's epochs also after a continuation."""

    def on_train_epoch_start(self, trainer: Any, *arguments: Any) -> None:
        super().on_train_epoch_start(trainer, *arguments)
        position = trainer.datamodule.position
        self.train_progress_bar.set_description(f"epoch {position.epoch + 1}")

    def get_metrics(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        return {name: value for name, value in super().get_metrics(trainer, pl_module).items() if name != "v_num"}
