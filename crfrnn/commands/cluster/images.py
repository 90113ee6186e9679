"""What there is to do: the images of folders, each with its predictions, and what their results are called."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from crfrnn.commands.cluster.places import Names, Place
from crfrnn.commands.outputs import Targets, in_folders
from crfrnn.data.files import FIRST_CHANNEL, matches, stem_of, suffix_of
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
        suffixes = _suffixes(self.kind, suffix_of(Path(image.images[0])))
        return {target: f"{image.name}{suffixes[target]}" for target in self.places}

    def done(self, image: Image) -> bool:
        """Whether all of them are there, asked now."""
        names = self.names(image)
        return all(place.holds(names[target]) for target, place in self.places.items())

    def left(self, images: Iterator[Image]) -> Iterator[Image]:
        """The images of which something is not there, by one look at each folder."""
        there = {target: set(place.names()) for target, place in self.places.items()}
        for image in images:
            if any(name not in there[target] for target, name in self.names(image).items()):
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


@dataclass(frozen=True)
class Pairs:
    """Images of a folder with predictions of another, or of the same one."""

    photos: Names
    predictions: Names
    place: Place

    @cached_property
    def problems(self) -> dict[str, str]:
        """Predictions that belong to no image, and why."""
        found = matches(self.photos, self.predictions, self.place)
        return {prediction: problem for _, image, prediction, problem in found if image is None}

    def __iter__(self) -> Iterator[Image]:
        for stem, image, prediction, _ in matches(self.photos, self.predictions, self.place):
            if image is not None:
                yield Image(stem, self._channels(image, stem), prediction)

    def _channels(self, first: str, stem: str) -> list[str]:
        """As `channels_of` has them."""
        if stem_of(Path(first)).as_posix() != f"{stem}{FIRST_CHANNEL}":
            return [first]
        stems = itertools.takewhile(self.photos.__contains__, (f"{stem}_{number:04d}" for number in range(10_000)))
        return [self.photos[one][0] for one in stems]


@dataclass(frozen=True)
class Alone:
    """Images of a folder, without predictions or with what is in their own files."""

    photos: Names
    with_predictions: bool = False

    @cached_property
    def problems(self) -> dict[str, str]:
        """Images that share their name."""
        return {f[0]: f"{' and '.join(f)} have the same name" for f in self.photos.values() if len(f) > 1}

    def __iter__(self) -> Iterator[Image]:
        for stem, files in self.photos.items():
            if len(files) == 1:
                yield Image(stem, files, files[0] if self.with_predictions else "")
