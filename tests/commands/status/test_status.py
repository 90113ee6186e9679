"""`--shard` from end to end, and `crfrnn status` at every stage of it."""

import shutil
from pathlib import Path

import pytest

from tests.support.command import run
from tests.support.folders import photos_and_predictions

IMAGES, SHARDS = 9, 3


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """The current folder, with photos/ and p/, of which one photo cannot be read and one prediction is alone."""
    monkeypatch.chdir(tmp_path)
    photos_and_predictions(IMAGES)
    return tmp_path


def refine(shard: str, *more: str) -> int:
    return run("refine", "photos", "--probabilities=p", "--out=out", "--iterations=1", "--shard", shard, *more)


def results(folder: str) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*.png")}


def test_shards_together_do_what_one_run_does(folders, capsys):
    assert run("status", "out") == 1
    assert capsys.readouterr().err == "crfrnn status: out: there is no such folder\n"
    statuses = [refine(f"{number}/{SHARDS}") for number in (3, 1)]
    capsys.readouterr()
    assert run("status", "out") == 1
    out, err = capsys.readouterr()
    assert "run again: --shard 2/3 (not begun)" in out
    statuses.append(refine(f"2/{SHARDS}"))
    assert statuses == [1, 1, 0]  # by hash, alone.npy is of shard 3 and 4.png of shard 1
    capsys.readouterr()
    assert run("status", "out") == 1
    out, err = capsys.readouterr()
    assert out.startswith("10 images: 8 done, 2 failed, 0 missing\n")
    assert "failed: 4.png: photos/4.png: not a readable image" in out
    assert "failed: p/alone.npy: no image alone.* in photos" in out
    assert err == "crfrnn status: out: 2 failed, 0 missing\n"

    assert run("refine", "photos", "--probabilities=p", "--out=whole", "--iterations=1") == 1
    assert results("out") == results("whole")


def test_status_follows_what_lies_there(folders, capsys):
    shutil.copy("photos/2.png", "photos/4.png")
    Path("p/alone.npy").unlink()
    shards = [f"{number}/{SHARDS}" for number in range(1, SHARDS + 1)]
    assert [refine(shard) for shard in shards] == [0, 0, 0]
    assert run("status", "out") == 0
    capsys.readouterr()
    Path("out/day/1.png").unlink()
    Path("out/old.png").write_bytes(b"of a photo that is gone")  # takes nobody's place
    assert run("status", "out") == 1
    out = capsys.readouterr().out
    assert out.startswith("9 images: 8 done, 0 failed, 1 missing\n")
    again = [line.split()[3] for line in out.splitlines() if line.startswith("run again: ")]
    assert len(again) == 1
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.png")}
    assert refine(again[0]) == 0
    assert capsys.readouterr().out.startswith("refined 1 images")
    assert {path: path.stat().st_mtime_ns for path in before} == before  # what was there stays
    assert run("status", "out") == 0
    assert refine("1/2") == 0  # another number of shards: what is there counts for those that have not begun
    capsys.readouterr()
    assert run("status", "out") == 1
    assert "run again: --shard 2/2 (not begun)" in capsys.readouterr().out


def test_a_result_of_a_run_before_is_not_that_of_one_that_failed(folders, capsys):
    shutil.copy("photos/2.png", "photos/4.png")
    Path("p/alone.npy").unlink()
    assert refine("1/1") == 0
    Path("photos/4.png").write_bytes(b"no photo any more")
    assert refine("1/1", "--overwrite") == 1
    capsys.readouterr()
    assert run("status", "out") == 1
    assert capsys.readouterr().out.startswith("9 images: 8 done, 1 failed, 0 missing\n")
    assert refine("1/1") == 0  # which leaves the older result alone
    assert run("status", "out") == 0


def test_lonely_predictions_of_one_name(folders, capsys):
    for folder in ("p/a", "p/b"):
        Path(folder).mkdir()
        shutil.copy("p/alone.npy", folder)
    assert refine("1/1") == 1
    capsys.readouterr()
    assert run("status", "out") == 1
    assert capsys.readouterr().out.startswith("12 images: 8 done, 4 failed, 0 missing\n")


def test_a_link_back_to_the_folder(folders, capsys):
    assert refine("1/1") == 1
    Path("out/day/again").symlink_to("..", target_is_directory=True)
    Path("out/broken.png").symlink_to("nowhere.png")
    capsys.readouterr()
    assert run("status", "out") == 1
    assert capsys.readouterr().out.startswith("10 images: 8 done, 2 failed, 0 missing\n")


def test_segment_has_shards(folders, capsys, monkeypatch):
    for name in ("0", "2"):
        shutil.copy(f"photos/{name}.png", f"{name}.png")
    photos = ("0.png", "2.png", "--model=camvid", "--iterations=0", "--out=labels")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    monkeypatch.setenv("JOB_COMPLETIONS", "2")
    assert run("segment", *photos, "--shard=auto") == 0
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert run("segment", *photos, "--shard=auto") == 0
    assert set(results("labels")) == {"0.png", "2.png"}
    assert run("status", "labels") == 0


def test_refusals(folders, capsys):
    for shard in ("4/3", "three", "auto"):
        assert refine(shard) == 2
        assert capsys.readouterr().err.startswith("crfrnn refine: shard: ")
    one = ("photos/0.png", "--probabilities=p/0.npy", "--out=0.png", "--shard=1/2")
    assert run("refine", *one) == 2
    assert "shard: shares out the images of folders, and p/0.npy is a file" in capsys.readouterr().err
    assert run("segment", "photos/0.png", "--out=0.png", "--shard=1/2") == 2
    assert "shard: shares out several photographs" in capsys.readouterr().err
    assert run("status", "s3://bucket/out") == 2
    assert "out: s3://bucket/out is no folder of this machine" in capsys.readouterr().err
    Path("out").mkdir()
    assert run("status", "out") == 1
    assert "no shard has begun to write into it" in capsys.readouterr().err
