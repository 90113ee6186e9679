"""The loss of a stage."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from crfrnn import CRFRNN, Bilateral, SegmentationNetwork, Spatial
from crfrnn.commands.train.options import (
    DenseCRFLossConfig,
    GatedCRFLossConfig,
    HardwareConfig,
    LossConfig,
    StageConfig,
)
from crfrnn.data.config import DataConfig
from crfrnn.data.datasets import VOID
from crfrnn.data.loading import Batch
from crfrnn.losses import DenseCRFLoss, GatedCRFLoss
from tests.support import made
from tests.support.each import each

pytest.importorskip("lightning", reason="training needs the extra train")
from crfrnn.commands.train.stage.run import Position, StageRun
from crfrnn.commands.train.stage.task import SegmentationTask


def task_of(stage: StageConfig, folder: Path, weights: torch.Tensor | None = None, crf: bool = True):
    """A task and the network in it, three classes."""
    torch.manual_seed(0)
    network = SegmentationNetwork(torch.nn.Conv2d(3, 3, 1), CRFRNN(3, kernels=[Spatial(2)]) if crf else None)
    data = DataConfig("folders", "x", options=made.FOLDERS)
    run = StageRun(stage, 0, 0, data, HardwareConfig(accelerator="cpu"), folder, weights)
    task = SegmentationTask(network, run, Position(), classes=3, batches=1)
    task.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    return task, network


@each("weight", [0.0, 0.5])
@each("class_weights", [None, (1.0, 3.0, 2.0)])
def test_the_networks_own_loss_beside_the_crfs(tmp_path, weight, class_weights):
    weights = None if class_weights is None else torch.tensor(class_weights)
    task, network = task_of(StageConfig("s", epochs=1, crf="trained", unary_loss=weight), tmp_path, weights)
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


@each("crf", [False, True])
@each("gate", [False, True])
def test_losses_of_dense_crfs_beside_the_cross_entropy(tmp_path, crf, gate):
    """With scribbles, most pixels void; behind a CRF-RNN and without one; the network's own at half the weight."""
    dense = DenseCRFLossConfig(weight=0.3, kernels=("bilateral:4,40,1",), normalization="after", gate=gate)
    config = LossConfig(0.7, dense, GatedCRFLossConfig(0.2, ("bilateral:3,40,1",), radius=2))
    stage = StageConfig("s", epochs=1, crf="trained" if crf else "none", loss=config, unary_loss=0.5)
    task, network = task_of(stage, tmp_path, crf=crf)
    photos = torch.randint(0, 256, (2, 3, 10, 12), dtype=torch.uint8)
    masks = torch.full((2, 10, 12), VOID, dtype=torch.uint8)
    masks[:, 4, 2:9] = torch.randint(0, 3, (2, 7), dtype=torch.uint8)

    loss = task.training_step(Batch(photos, masks, ["a", "b"]), 0)
    images, guide, truth = network.normalize(photos), photos.float(), masks.long()

    def expected(logits: torch.Tensor) -> torch.Tensor:
        p = logits.softmax(dim=1)
        half = torch.nn.functional.interpolate(p, scale_factor=0.5, mode="bilinear")
        of_crf = DenseCRFLoss([Bilateral(4, 40, weight=1)], 0.3, normalization="after")
        gated = GatedCRFLoss([Bilateral(3, 40, weight=1)], 0.2, radius=2)
        return (
            0.7 * cross_entropy(logits, truth, ignore_index=VOID)
            + of_crf(p, guide, labels=truth if gate else None)
            + gated(half, guide, destination=(masks == VOID).float())
        )

    sum_of_both = expected(network(images)) + (0.5 * expected(network.unary_logits(images)) if crf else 0)
    torch.testing.assert_close(loss, sum_of_both)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_batch_without_a_label_lowers_the_crfs_energy_alone(tmp_path):
    config = LossConfig(dense_crf=DenseCRFLossConfig(weight=1.0, kernels=("spatial:2,1",)))
    task, network = task_of(StageConfig("s", epochs=1, loss=config), tmp_path, crf=False)
    photos = torch.randint(0, 256, (1, 3, 10, 12), dtype=torch.uint8)
    void = torch.full((1, 10, 12), VOID, dtype=torch.uint8)
    loss = task.training_step(Batch(photos, void, ["a"]), 0)
    expected = DenseCRFLoss([Spatial(2, weight=1)], 1)
    torch.testing.assert_close(loss, expected(network(network.normalize(photos)), photos.float(), logits=True))
