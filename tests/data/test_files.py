"""Files that are whole or absent, and folders matched by name."""

import os
from pathlib import Path

import pytest

from crfrnn.data.files import PART, clear_parts, is_part, pair_by_stem, printable, writing


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def write_half(path: Path, error: BaseException) -> None:
    with writing(path) as file:
        file.write(b"half")
        raise error


def test_a_file_is_whole_or_absent(tmp_path):
    target = tmp_path / "new" / "file.bin"
    with pytest.raises(RuntimeError):
        write_half(target, RuntimeError())
    assert list(target.parent.iterdir()) == []
    with writing(target) as file:
        file.write(b"whole")
    with pytest.raises(KeyboardInterrupt):
        write_half(target, KeyboardInterrupt())
    assert [path.read_bytes() for path in target.parent.iterdir()] == [b"whole"]


def test_what_a_killed_process_left_is_deleted_and_what_a_living_one_writes_is_not(tmp_path):
    killed = tmp_path / PART.format("0123abcd")
    killed.write_bytes(b"half")
    with writing(tmp_path / "first") as file:
        assert not killed.exists()
        clear_parts.cache_clear()  # as another process
        clear_parts(tmp_path)
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert not is_part(tmp_path / "first")


def test_the_longest_name_that_there_is(tmp_path):
    name = "x" * 251 + ".png"
    with writing(tmp_path / name) as file:
        file.write(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_has_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with writing(tmp_path / "ours") as file:
        file.write(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_pairs_by_stem(tmp_path):
    images = touch(tmp_path / "images", "a.jpg", "b.JPEG", "c.png", "d.jpg", "d.png", "notes.txt", ".a.jpg")
    given = touch(tmp_path / "given", "a.npz", "b.npy", "d.npz", "e.npz", "f.npy", "f.npz")
    matched = pair_by_stem(images, given, (".npy", ".npz"))
    assert matched.pairs == {"a": (images / "a.jpg", given / "a.npz"), "b": (images / "b.JPEG", given / "b.npy")}
    assert {path.name: reason for path, reason in matched.problems.items()} == {
        "d.npz": "d.jpg and d.png have the same name",
        "e.npz": f"no image e.* in {images}",
        "f.npy": "f.npy and f.npz have the same name",
    }
    assert matched.unused == 1


def test_pairs_in_folders_inside(tmp_path):
    images, given = tmp_path / "images", tmp_path / "images" / "given"  # one folder may lie in the other
    for place in ("", "day", "day/night"):
        (images / place).mkdir(exist_ok=True)
        touch(images / place, "a.png", "b.png")
    for place, names in {"": ["a.png"], "day": ["b.png"], "day/night": ["a.png", "c.png"], ".kept": ["b.png"]}.items():
        (given / place).mkdir(parents=True)
        touch(given / place, *names)
    (images / "day" / "round").symlink_to(images)
    matched = pair_by_stem(images, given, (".png",))
    assert sorted(matched.pairs) == ["a", "day/b", "day/night/a"]
    assert matched.pairs["day/b"] == (images / "day/b.png", given / "day/b.png")
    assert list(matched.problems) == [given / "day/night/c.png"]
    assert sorted(matched.lonely) == [images / name for name in ("b.png", "day/a.png", "day/night/b.png")]
    matched = pair_by_stem(given, images, (".png",), besides=[images / "day"])
    assert (sorted(matched.pairs), matched.unused) == (["a"], 3)


def test_pairs_within_one_folder(tmp_path):
    folder = touch(tmp_path / "both", "a.jpg", "a.png", "b.jpg")
    matched = pair_by_stem(folder, folder, (".png",))
    assert matched.pairs == {"a": (folder / "a.jpg", folder / "a.png")}
    assert matched.unused == 1


def test_names_are_printed_as_plain_text():
    assert printable("plain \u00e9 \u4e2d\n") == "plain \u00e9 \u4e2d\n"
    assert printable("a\x1b[2J\x07\u202e.jpg") == "a\\x1b[2J\\x07\\u202e.jpg"
    assert printable(os.fsdecode(b"\xff.jpg")) == "\\udcff.jpg"
