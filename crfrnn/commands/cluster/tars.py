"""WebDataset shards in place of folders: `KEY.jpg` and `KEY.npy` of each image in a .tar, results in .tars again.

A shard of results is whole or absent, and stands for all of its images. Where some fail, the others are in it, and
``NAME.tar.failed`` beside it, with a line for each: the shard then counts as not done.
"""

import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crfrnn.commands.batch import one_line
from crfrnn.commands.cluster.images import Image, Results
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.cluster.worker import Task
from crfrnn.commands.outputs import Targets, in_folders
from crfrnn.data.files import writing

TAR, FAILED = ".tar", ".tar.failed"


@dataclass(frozen=True)
class Sample:
    """One image of a shard, unpacked."""

    key: str  # its path in the shard without suffix
    image: Path
    predictions: Path | None


@dataclass(frozen=True)
class TarResults(Results):
    """Shards of results: one in each of the places."""

    def names(self, image: Image) -> dict[str, str]:
        """Those of its shards in these places."""
        return dict.fromkeys(self.places, f"{image.name}{TAR}")

    def done(self, image: Image) -> bool:
        """Whether all of them are there and no image had failed."""
        return super().done(image) and not self.lead.holds(f"{image.name}{FAILED}")

    def left(self, images: Iterable[Image]) -> Iterator[Image]:
        """The shards that are not done; there are few of them."""
        return (image for image in images if not self.done(image))


@dataclass(frozen=True)
class TarTask(Task):
    """What a worker does with a shard: the same for each of its images."""

    suffixes: Sequence[str] = ()  # of predictions; none of photographs alone

    def do(self, image: Image) -> float | None:
        """Do one shard; None where another worker has done it, ValueError where images failed."""
        if not self.overwrite and self.results.done(image):
            return None
        out, marker = self.results.lead, f"{image.name}{FAILED}"
        with tempfile.TemporaryDirectory(prefix="crfrnn-") as name:
            folder = Path(name)
            shard = self.folders[0].fetch(image.images[0], folder)
            changed, failures = [], []
            for sample in unpacked(shard, folder / "samples", self.results.kind.suffixes, self.suffixes):
                suffixes = in_folders(sample.image, self.results.kind)
                targets = {t: folder / "results" / t / f"{sample.key}{suffixes[t]}" for t in self.results.places}
                try:
                    if self.suffixes and sample.predictions is None:
                        raise ValueError(f"no {' or '.join(self.suffixes)} beside it")
                    changed.append(self.work([sample.image], sample.predictions, Targets(**targets)))
                except Exception as error:  # fails its image alone
                    failures.append(f"{sample.key}: {one_line(error)}".replace(f"{folder}/", ""))
            if not changed and not failures:
                raise ValueError(f"{shard.name}: holds no {' or '.join(self.results.kind.suffixes)} files")
            if failures:
                store(out, marker, "".join(f"{line}\n" for line in failures).encode(), folder)
            for target, place in reversed([*self.results.places.items()]):
                store_tar(place, f"{image.name}{TAR}", folder / "results" / target, folder)
            if not failures:
                out.remove(marker)
        if failures:
            more = f" and {len(failures) - 1} more, see {marker}" * (len(failures) > 1)
            raise ValueError(f"{len(failures)} of {len(failures) + len(changed)} images failed: {failures[0]}{more}")
        return sum(changed) / len(changed)


def unpacked(shard: Path, folder: Path, images: Sequence[str], predictions: Sequence[str]) -> Iterator[Sample]:
    """The images of a shard with the predictions of the same key, in its order; other files are left alone.

    A key ends at the first dot of the last name, as WebDataset has it: ``1.seg.png`` is no image of 1, and left alone.
    """
    found: dict[str, dict[str, Path]] = {}
    try:
        with tarfile.open(shard) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                key, _, ending = path.name.partition(".")
                kind = "image" if f".{ending}".lower() in images else "predictions"
                if not member.isfile() or (kind == "predictions" and f".{ending}".lower() not in predictions):
                    continue
                if path.is_absolute() or ".." in path.parts:
                    raise ValueError(f"{path} leads out of it")
                file, content = folder / path, tar.extractfile(member)
                assert content is not None
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("wb") as copy:
                    while piece := content.read(1 << 20):
                        copy.write(piece)
                key = str(path.with_name(key))
                if kind in found.setdefault(key, {}):
                    raise ValueError(f"{found[key][kind].name} and {path.name} have the same key")
                found[key][kind] = file
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ValueError(f"{shard.name}: not a readable shard ({error})") from None
    for key, files in found.items():
        if "image" in files:
            yield Sample(key, files["image"], files.get("predictions"))


def store_tar(place: Place, name: str, results: Path, folder: Path) -> None:
    """Pack results into a shard; its bytes depend on nothing but theirs."""
    packed = folder / "packed.tar"
    with tarfile.open(packed, "w") as tar:
        for file in sorted(path for path in results.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(file.relative_to(results).as_posix())
            member.size = file.stat().st_size
            with file.open("rb") as content:
                tar.addfile(member, content)
    store(place, name, packed.read_bytes(), folder)


def store(place: Place, name: str, content: bytes, folder: Path) -> None:
    """Write a file that appears whole or not at all."""
    if place.local is not None:
        with writing(place.local / name) as file:
            file.write(content)
        return
    copy = folder / "stored"
    copy.write_bytes(content)
    place.put(copy, name)
