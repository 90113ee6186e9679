"""What there is to do: the images of folders, each with its predictions, and what their results are called."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from crfrnn.commands.cluster.names import Names
from crfrnn.commands.cluster.places import Place
from crfrnn.commands.outputs import Targets, in_folders
from crfrnn.data.files import FIRST_CHANNEL, FURTHER_CHANNEL, matches, stem_of, suffix_of
from crfrnn.data.kinds import Kind


class Image(NamedTuple):
    """One image of many, by names in its folders."""

    name: str  # the path without suffix that its results get
    images: list[str]  # its files
    source: str  # its predictions, or ""


@dataclass(frozen=True)
class Results:
    """Where the results go."""

    places: Mapping[str, Place]  # by the names of `Targets`, "out" first
    kind: type[Kind]

    @property
    def lead(self) -> Place:
        """That of the label maps, or where none are wanted of other results."""
        return next(iter(self.places.values()))

    def names(self, image: Image) -> dict[str, str]:
        """Those of its files in these places."""
        suffixes = _suffixes(self.kind, suffix_of(image.images[0]))
        return {target: f"{image.name}{suffixes[target]}" for target in self.places}

    def done(self, image: Image) -> bool:
        """Whether all of them are there, asked now."""
        names = self.names(image)
        return all(place.holds(names[target]) for target, place in self.places.items())

    def file(self, image: Image) -> str:
        """The one by which an image is known: that in `lead`."""
        return next(iter(self.names(image).values()))

    def left(self, images: Iterable[Image]) -> Iterator[Image]:
        """The images of which something is not there, by one look at each folder."""
        there = {target: Names(place.names()) for target, place in self.places.items()}
        for image in images:
            if not all(there[target].has(name) for target, name in self.names(image).items()):
                yield image

    def targets(self, image: Image, folder: Path) -> Targets:
        """Where they are written: at once to where they belong, or into folders of one that is emptied from there."""
        names = self.names(image)
        return Targets(**{t: (place.local or folder / t) / names[t] for t, place in self.places.items()})

    def publish(self, folder: Path) -> None:
        """Copy what `targets` put into a folder; the label maps come last: where one stands, everything does."""
        for target, place in reversed([*self.places.items()]):
            inside = folder / target
            if place.local is None:
                for file in sorted(path for path in inside.rglob("*") if path.is_file()):
                    place.put(file, file.relative_to(inside).as_posix())


@lru_cache
def _suffixes(kind: type[Kind], suffix: str) -> Mapping[str, str]:
    return in_folders(Path(f"image{suffix}"), kind)


@dataclass
class Pairs:
    """Images of a folder with predictions of another, or of the same one."""

    photos: Names
    predictions: Names
    place: Place
    problems: dict[str, str] = field(default_factory=dict)  # predictions without an image, and why: once all are read

    def __iter__(self) -> Iterator[Image]:
        for stem, image, prediction, problem in matches(self.photos, self.predictions, self.place):
            if image is None:
                self.problems[prediction] = problem
            else:
                yield Image(stem, self._channels(image, stem), prediction)

    def __len__(self) -> int:
        return len(self.predictions)

    def unused(self) -> int:
        """How many images there are without predictions, as `pair_by_stem` has them."""
        stems = ({stem, FURTHER_CHANNEL.sub("", stem)} for stem in self.photos)
        return sum(not any(stem in self.predictions for stem in both) for both in stems)

    def _channels(self, first: str, stem: str) -> list[str]:
        """As `channels_of` has them."""
        if stem_of(Path(first)).as_posix() != f"{stem}{FIRST_CHANNEL}":
            return [first]
        stems = itertools.takewhile(self.photos.__contains__, (f"{stem}_{number:04d}" for number in range(10_000)))
        return [self.photos[one][0] for one in stems]


@dataclass
class Alone:
    """Images of a folder, without predictions or with what is in their own files."""

    photos: Names
    with_predictions: bool = False
    problems: dict[str, str] = field(default_factory=dict)  # images that share their name: once all are read

    def __iter__(self) -> Iterator[Image]:
        for stem, files in self.photos.items():
            if len(files) == 1:
                yield Image(stem, files, files[0] if self.with_predictions else "")
            else:
                self.problems[files[0]] = f"{' and '.join(files)} have the same name"

    def __len__(self) -> int:
        return len(self.photos)

    def unused(self) -> int:
        """None is."""
        return 0
