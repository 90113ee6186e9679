"""Data sets in the layouts of the real ones: pairs, splits, class numbers, and refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crfrnn.data.datasets import DATASETS, VOC2012, VOID, CamVid, Cityscapes, Classes, Folders, SegmentationDataset
from tests.support import made
from tests.support.places import DATA

CAMVID = DATA / "camvid"


MADE = {  # the training split of a made-up data set under each name
    "camvid": lambda root: CamVid(made.make_camvid(root)),
    "cityscapes": lambda root: Cityscapes(made.make_cityscapes(root)),
    "folders": lambda root: Folders(made.make_folders(root), **made.FOLDERS),
    "voc2012": lambda root: VOC2012(made.make_voc(root)[0]),
}


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_gives_samples(tmp_path, name):
    dataset = MADE[name](tmp_path)
    assert len(dataset) >= 2
    assert len(dataset.classes.palette) == len(dataset.classes) == len(set(dataset.classes.names))
    for sample in (dataset[index] for index in range(len(dataset))):
        assert sample.image.dtype == sample.mask.dtype == torch.uint8
        assert sample.image.shape == (3, *sample.mask.shape) == (3, 24, 32)
        assert VOID in sample.mask
        assert int(sample.mask[sample.mask != VOID].max()) < len(dataset.classes)
    names = [pair.name for pair in dataset.pairs]
    assert names == sorted(names)
    dataset.size = (16, 10)
    assert dataset[0].image.shape == (3, 10, 16)
    assert dataset[0].mask.shape == (10, 16)


@pytest.mark.parametrize("name", DATASETS)
def test_a_folder_without_the_expected_folders(tmp_path, name):
    options = {"classes": ["a", "b"]} if name == "folders" else {}
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"^root: .* is no folder; "):
            DATASETS[name](root, "train", **options)
    if name != "folders":
        with pytest.raises(ValueError, match=r"^split: 'best' is none of train, val"):
            DATASETS[name](tmp_path, "best")


def test_the_pairs_that_there_are(tmp_path):
    made.make_camvid(tmp_path)
    (tmp_path / "trainannot/1.png").unlink()
    (tmp_path / "train/2.png").unlink()
    whole, found = CamVid(tmp_path, "val"), CamVid(tmp_path, "train", partial=True)
    assert whole.left_out == ""
    assert [pair.name for pair in found.pairs] == ["0"]
    assert found.left_out == (
        f"1 of the images (no mask in {tmp_path}/trainannot) and 1 of the masks ({tmp_path}/trainannot/2.png:"
        f" no image 2.* in {tmp_path}/train)"
    )
    with pytest.raises(ValueError, match=r"2.png: no image 2"):
        CamVid(tmp_path, "train")


def test_the_pairs_of_a_list_that_there_are(tmp_path):
    for number in range(4):
        image, mask = made.scene(number)
        made.save(image, tmp_path / f"images/{number}.png")
        if number < 2:
            made.save(mask, tmp_path / f"masks/{number}.png")
    (tmp_path / "val.txt").write_text("1\n2\n3\n")
    found = Folders(tmp_path, "val", classes=["a", "b", "c"], partial=True)
    assert [pair.name for pair in found.pairs] == ["1"]
    assert found.left_out == f"2 of the names in {tmp_path}/val.txt ('2' has no image and mask)"
    with pytest.raises(ValueError, match=r"2 images in .* have no mask here"):
        Folders(tmp_path, "val", classes=["a", "b", "c"])


def test_masks_are_class_indices_never_colours(tmp_path):
    image, mask = made.scene(0)
    made.save(image, tmp_path / "images" / "a.png")
    path = made.save(mask, tmp_path / "masks" / "a.png")
    palette = np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8)
    with Image.open(path) as grey:
        coloured = grey.copy()
    coloured.putpalette(palette.tobytes())
    for stored in (Image.fromarray(mask), coloured, Image.fromarray(mask.astype(np.uint16))):
        stored.save(path)
        dataset = Folders(tmp_path, "all", classes=["a", "b", "c"])
        assert dataset[0].mask.tolist() == mask.tolist()
    coloured.convert("RGB").save(path)
    with pytest.raises(ValueError, match=r"a\.png: mode RGB, expected class indices"):
        Folders(tmp_path, "all", classes=["a", "b", "c"])[0]


def test_cityscapes_label_ids_become_train_ids(tmp_path):
    _, mask = made.scene(0)
    expected = np.array([0, 13, VOID])[np.minimum(mask, 2)]
    assert MADE["cityscapes"](tmp_path)[0].mask.tolist() == expected.tolist()


def test_voc_splits_come_from_the_lists(tmp_path):
    voc, sbd = made.make_voc(tmp_path)

    def names(split: str) -> list[str]:
        return [pair.name for pair in VOC2012(voc, split, sbd=sbd).pairs]

    assert names("val_reduced") == ["2007_03", "2008_05"]
    assert names("train_sbd") == ["2007_01", "2007_02", "2008_04", "2009_06", "2009_07"]
    assert names("trainaug") == ["2007_01", "2007_02", "2009_06", "2009_07"]
    assert names("val") == list(made.VOC_VAL)
    assert names("trainval") == [*made.VOC_TRAIN, *made.VOC_VAL]
    with pytest.raises(ValueError, match=r"^sbd: the split 'val_reduced' needs SBD"):
        VOC2012(voc, "val_reduced")
    with pytest.raises(ValueError, match=r"^root: .*cls is no folder; sbd must be"):
        VOC2012(voc, "train", sbd=tmp_path)


def test_sbd_annotations_as_they_were_published(tmp_path):
    voc, sbd = made.make_voc(tmp_path)
    dataset = VOC2012(voc, "train_sbd", sbd=sbd)
    kinds = {pair.name: pair.mask.suffix for pair in dataset.pairs}
    assert kinds["2009_06"] == ".mat"
    assert kinds["2009_07"] == ".png"
    assert kinds["2007_01"] == ".png"  # annotated by both: VOC's own
    for index in (3, 4):
        _, mask = made.scene(int(dataset.pairs[index].name[-2:]))
        assert dataset[index].mask.tolist() == np.where(mask == 255, 0, mask).tolist()
    (sbd / "cls" / "2009_06.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(ValueError, match=r"2009_06\.mat: not a readable SBD annotation"):
        dataset[3]


def test_folders_split_by_folder_list_or_name(tmp_path):
    for number in range(40):
        image, mask = made.scene(number)
        made.save(image, tmp_path / "images" / f"{number}.png")
        made.save(mask, tmp_path / "masks" / f"{number}.png")
    (tmp_path / "names.txt").write_text("ground\nred thing\ngreen\n")

    def names(split: str) -> set[str]:
        return {pair.name for pair in Folders(tmp_path, split, classes="names.txt").pairs}

    train, val = names("train"), names("val")
    assert train | val == names("all")
    assert not train & val
    assert 2 <= len(val) <= 16
    made.save(made.scene(40)[0], tmp_path / "images" / "40.png")
    made.save(made.scene(40)[1], tmp_path / "masks" / "40.png")
    assert train <= names("train")  # more data move nothing
    assert val <= names("val")
    assert Folders(tmp_path, classes="names.txt").classes.names == ("ground", "red thing", "green")
    with pytest.raises(ValueError, match=r"^split: there is neither .*test\.txt"):
        names("test")
    (tmp_path / "test.txt").write_text("3\n7.png\n")
    assert names("test") == {"3", "7"}
    (tmp_path / "test.txt").write_text("3\n77\n")
    with pytest.raises(ValueError, match=r"test\.txt: '77' and 0 more have no image"):
        names("test")


def refused_mask(tmp_path: Path, mask: np.ndarray, **options) -> str:
    image, _ = made.scene(0)
    made.save(image, tmp_path / "images" / "a.png")
    made.save(mask, tmp_path / "masks" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: ") as caught:
        Folders(tmp_path, "all", classes=["a", "b", "c"], **options)[0]
    return str(caught.value)


def test_unusable_masks(tmp_path):
    _, mask = made.scene(0)
    message = refused_mask(tmp_path, mask[:, :20])
    assert "20 x 24 pixels, but its image" in message
    assert "has 32 x 24" in message
    assert "holds 255, outside the 3 classes and void (9)" in refused_mask(tmp_path, mask, void=[9])
    mask[0] = 5
    assert "holds 5, outside the 3 classes and void (255)" in refused_mask(tmp_path, mask)
    (tmp_path / "masks" / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"masks.a\.png: not a readable image"):
        Folders(tmp_path, "all", classes=["a", "b"])[0]


def test_folders_inside_of_images_and_masks(tmp_path):
    for name in ("a", "day/a", "day/b"):
        image, mask = made.scene(0)
        made.save(image, tmp_path / "images" / f"{name}.png")
        made.save(mask, tmp_path / "masks" / f"{name}.png")
    dataset = Folders(tmp_path, "all", classes=["a", "b", "c"])
    assert [sample.name for sample in dataset] == ["a", "day/a", "day/b"]
    (tmp_path / "train.txt").write_text("day/b.png\nimages/a.png\nday/a\n")
    dataset = Folders(tmp_path, "train", classes=["a", "b", "c"])
    assert [pair.name for pair in dataset.pairs] == ["day/b", "a", "day/a"]
    (tmp_path / "masks").rename(tmp_path / "images" / "masks")
    within = Folders(tmp_path, "all", classes=["a", "b", "c"], images="images", masks="images/masks")
    assert len(within) == 3
    (tmp_path / "images" / "masks" / "day" / "b.png").unlink()
    with pytest.raises(ValueError, match=r"masks: 1 images in .* have no mask here, such as day.b\.png; add"):
        Folders(tmp_path, "all", classes=["a", "b", "c"], images="images", masks="images/masks")


def test_folders_of_splits_inside_of_others(tmp_path):
    """Images for the test are never trained on because nobody said that the folders are splits."""
    for split in ("train", "val", "test"):
        image, mask = made.scene(0)
        made.save(image, tmp_path / "images" / split / "0.png")
        made.save(mask, tmp_path / "masks" / split / "0.png")
    message = r"^images: images has folders of its own for test, train, val; give images: images/\{split\} and masks"
    names = ["a", "b", "c"]
    for split in ("train", "val"):
        with pytest.raises(ValueError, match=message):
            Folders(tmp_path, split, classes=names)
        told = Folders(tmp_path, split, classes=names, images="images/{split}", masks="masks/{split}")
        assert [pair.name for pair in told.pairs] == ["0"]
    (tmp_path / "train.txt").write_text("train/0\n")
    assert [pair.name for pair in Folders(tmp_path, "train", classes=names).pairs] == ["train/0"]


def test_images_and_masks_must_be_pairs(tmp_path):
    root = made.make_folders(tmp_path)
    (root / "images" / "train" / "03.png").unlink()
    with pytest.raises(ValueError, match=r"masks.train.03\.png: no image 03\.\*"):
        Folders(root, **made.FOLDERS)
    (root / "masks" / "val" / "03.png").unlink()
    with pytest.raises(ValueError, match=r"masks.val: 1 images in .* have no mask here"):
        Folders(root, "val", **made.FOLDERS)
    with pytest.raises(ValueError, match=r"^masks: 'masks' and 'images/\{split\}' must both"):
        Folders(root, classes=["a", "b"], images="images/{split}")
    with pytest.raises(ValueError, match=r"^classes: there is no file .*list\.txt"):
        Folders(root, classes="list.txt")
    with pytest.raises(ValueError, match=r"^validation_share: "):
        Folders(root, classes=["a", "b"], validation_share=2)
    with pytest.raises(ValueError, match=r"^size: "):
        SegmentationDataset([], Classes(("a", "b")), size=(0, 3))


def test_classes_that_make_no_sense():
    with pytest.raises(ValueError, match=r"^classes: 1 of them"):
        Classes(("one",))
    with pytest.raises(ValueError, match=r"^classes: 'a' stands there twice"):
        Classes(("a", "a"))
    with pytest.raises(ValueError, match=r"^void: 1 is the value of class 'b'"):
        Classes(("a", "b"), void=frozenset({1}))


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the real CamVid is not beside this checkout")
def test_the_real_camvid():
    counts = {split: len(CamVid(CAMVID, split)) for split in CamVid.SPLITS}
    assert counts == {"train": 367, "val": 101, "test": 233}
    sample = CamVid(CAMVID, "val", size=(240, 180))[0]
    assert sample.image.shape == (3, 180, 240)
    assert set(sample.mask.unique().tolist()) <= {*range(11), VOID}
