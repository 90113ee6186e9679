"""Which epoch's network is kept."""

from types import SimpleNamespace

import pytest
import torch

from crfrnn.commands.train.options import HardwareConfig, StageConfig
from crfrnn.data.config import DataConfig
from tests.support import made

pytest.importorskip("lightning", reason="training needs the extra train")
from crfrnn.commands.train.stage import keeper
from crfrnn.commands.train.stage.run import Position, StageRun


def test_the_best_epoch_is_chosen_by_the_classes_of_the_truth(tmp_path, monkeypatch):
    """The first epoch is better but for one pixel of a class that is nowhere; the second has none."""
    stage, data = StageConfig("network", epochs=2), DataConfig("folders", str(tmp_path), options=made.FOLDERS)
    run = StageRun(stage, 0, 0, data, HardwareConfig(accelerator="cpu"), tmp_path, None)
    keeping, exported = keeper.Keeper(run, print), []
    monkeypatch.setattr(keeper, "export", lambda network, folder: exported.append(network))
    for name in ("_log", "_save"):
        monkeypatch.setattr(keeping, name, lambda *_: None)
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(reduce=lambda value, reduce_op: value), world_size=1, is_global_zero=True
    )
    for epoch, counts in enumerate(([[90, 10, 0], [10, 89, 1], [0, 0, 0]], [[80, 20, 0], [20, 80, 0], [0, 0, 0]])):
        module = SimpleNamespace(
            network=epoch, confusion=torch.tensor(counts), loss_sum=torch.tensor(1.0), position=Position(epoch, 3)
        )
        keeping.on_train_epoch_end(trainer, module)
    assert exported == [0]
    assert keeping.best == pytest.approx((90 / 110 + 89 / 110) / 2)
