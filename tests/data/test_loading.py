"""Batches: which samples, in which order, on how many processes, from where."""

import pytest
import torch

from crfrnn.data.config import Augmentation
from crfrnn.data.datasets import VOID, Folders
from crfrnn.data.loading import EpochBatches, EvaluationSamples, batches_in_epoch, evaluation_loader, training_loader
from tests.support import made


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Folders:
    return Folders(made.make_folders(tmp_path_factory.mktemp("data"), count=7), **made.FOLDERS)


AUGMENTATION = Augmentation(scale=(0.8, 1.2), crop=(16, 12), flip=0.5, colour=0.2)


def batches(dataset, workers: int = 0, **options) -> list:
    return list(training_loader(dataset, AUGMENTATION, EpochBatches(len(dataset), 2, seed=5, **options), workers))


def test_an_epoch_holds_every_sample_in_full_batches(dataset):
    keys = list(EpochBatches(7, 2, seed=0, epoch=3))
    assert len(keys) == batches_in_epoch(7, 2) == 4
    assert {len(batch) for batch in keys} == {2}
    assert sorted({index for batch in keys for _, index in batch}) == list(range(7))
    assert {epoch for batch in keys for epoch, _ in batch} == {3}
    assert keys != list(EpochBatches(7, 2, seed=1, epoch=3))
    assert [i for b in keys for _, i in b] != [i for b in EpochBatches(7, 2, seed=0, epoch=4) for _, i in b]


def test_from_the_middle_of_an_epoch_it_goes_on_the_same(dataset):
    whole, rest = batches(dataset, epoch=2), batches(dataset, epoch=2, start=3)
    assert len(whole) == 4
    assert len(rest) == 1
    assert torch.equal(whole[3].images, rest[0].images)
    assert torch.equal(whole[3].masks, rest[0].masks)
    assert not torch.equal(whole[3].images, batches(dataset, epoch=3)[3].images)


def test_workers_change_nothing(dataset):
    for alone, together in zip(batches(dataset, epoch=0), batches(dataset, workers=2, epoch=0), strict=True):
        assert torch.equal(alone.images, together.images)
        assert alone.names == together.names


def test_processes_share_what_one_would_do_alone():
    alone = list(EpochBatches(13, 4, seed=0, epoch=0))
    shares = [list(EpochBatches(13, 2, seed=0, epoch=0, process=process, processes=2)) for process in range(2)]
    assert len(shares[0]) == len(shares[1]) == len(alone)
    for both, first, second in zip(alone, *shares, strict=True):
        assert sorted(first + second) == sorted(both)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_counts_every_sample_once(dataset, processes):
    loaders = [evaluation_loader(dataset, process=process, processes=processes) for process in range(processes)]
    assert len({len(loader) for loader in loaders}) == 1
    counted = [batch.names[0] for loader in loaders for batch in loader if (batch.masks != VOID).any()]
    assert sorted(counted) == [pair.name for pair in dataset.pairs]
    beyond = EvaluationSamples(dataset)[7]
    assert not isinstance(beyond, str)
    assert (beyond.mask == VOID).all()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_went_bad_is_one_line(tmp_path, workers):
    dataset = Folders(made.make_folders(tmp_path, count=3), **made.FOLDERS)
    dataset.pairs[1].image.write_bytes(b"\x89PNG cut short")
    problems = [batch.problem for batch in batches(dataset, workers=workers, epoch=0)]
    assert any(problems)
    for problem in filter(None, problems):
        assert problem.startswith(f"{dataset.pairs[1].image}: not a readable image")
        assert "\n" not in problem
    assert any(batch.problem for batch in evaluation_loader(dataset, workers))


def test_sizes_that_do_not_fit_into_one_batch(tmp_path):
    image, mask = made.scene(0)
    for number, width in enumerate((32, 20)):
        made.save(image[:, :width], tmp_path / "images" / f"{number}.png")
        made.save(mask[:, :width], tmp_path / "masks" / f"{number}.png")
    dataset = Folders(tmp_path, "all", classes=["a", "b", "c"])
    loader = training_loader(dataset, Augmentation(), EpochBatches(2, 2, 0, 0), 0)
    assert "photographs of 20 x 24 and 32 x 24 pixels do not fit into one batch; set" in str(next(iter(loader)).problem)
