"""The loss of a stage."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from crfrnn import CRFRNN, SegmentationNetwork, Spatial
from crfrnn.commands.train.options import HardwareConfig, StageConfig
from crfrnn.data.config import DataConfig
from crfrnn.data.datasets import VOID
from crfrnn.data.loading import Batch
from tests.support import made
from tests.support.each import each

pytest.importorskip("lightning", reason="training needs the extra train")
from crfrnn.commands.train.stage.run import Position, StageRun
from crfrnn.commands.train.stage.task import SegmentationTask


@each("weight", [0.0, 0.5])
@each("class_weights", [None, (1.0, 3.0, 2.0)])
def test_the_networks_own_loss_beside_the_crfs(tmp_path, weight, class_weights):
    torch.manual_seed(0)
    network = SegmentationNetwork(torch.nn.Conv2d(3, 3, 1), CRFRNN(3, kernels=[Spatial(2)]))
    stage, data = (
        StageConfig("s", epochs=1, crf="trained", unary_loss=weight),
        DataConfig("folders", "x", options=made.FOLDERS),
    )
    weights = None if class_weights is None else torch.tensor(class_weights)
    run = StageRun(stage, 0, 0, data, HardwareConfig(accelerator="cpu"), tmp_path, weights)
    task = SegmentationTask(network, run, Position(), classes=3, batches=1)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    photos = torch.randint(0, 256, (2, 3, 9, 12), dtype=torch.uint8)
    masks = torch.randint(0, 3, (2, 9, 12), dtype=torch.uint8)
    masks[:, :2] = VOID

    loss = task.training_step(Batch(photos, masks, ["a", "b"]), 0)
    images = network.normalize(photos)
    of_the_crf, of_the_network = (
        cross_entropy(logits, masks.long(), weights, ignore_index=VOID)
        for logits in (network(images), network.unary_logits(images))
    )
    torch.testing.assert_close(loss, of_the_crf + weight * of_the_network)
