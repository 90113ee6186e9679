"""The kinds of images that a CRF refines: one dictionary from a file's suffix to what reads it, and writes its labels.

A new kind is a class from `Kind`, in the tuple here.
"""

from collections.abc import Sequence
from pathlib import Path

from crfrnn.data.files import files_by_stem, suffix_of
from crfrnn.data.images import too_large
from crfrnn.data.kinds.cloud import Cloud
from crfrnn.data.kinds.kind import Kind
from crfrnn.data.kinds.photograph import Photograph
from crfrnn.data.kinds.raster import LargePhotograph, Raster
from crfrnn.data.kinds.volume import Volume
from crfrnn.data.predictions import SUFFIXES

# photographs after rasters: of the suffixes that both have, `kind_of` looks into the file
KINDS: dict[str, type[Kind]] = {s: kind for kind in (Raster, Photograph, Volume, Cloud) for s in kind.suffixes}


def kind_of(path: Path, besides: Sequence[Path] = ()) -> type[Kind]:
    """The kind of a file, by its suffix, or that of most files in a folder; what is unknown is a photograph.

    TIFFs are of two kinds, which their headers tell (`Raster.holds`), and whatever becomes a TIFF, as the first of
    `besides` says, is a raster; so, in all but its name, is a photograph that is too large to be read at once. Arrays,
    which may be predictions, tell the kind of a folder only where there is nothing else.

    >>> kind_of(Path("ct.nii.gz")).several, kind_of(Path("scan")).several
    ('volumes', 'photographs')
    """
    if not path.is_dir():
        kind = _by_name(path, besides)
        return LargePhotograph if kind is Photograph and too_large(path) else kind
    names = [file for files in files_by_stem(path, tuple(KINDS), besides).values() for file in files]
    names = [name for name in names if suffix_of(name) not in SUFFIXES] or names
    kinds = [_by_name(name) for name in names]
    return max(dict.fromkeys(kinds), key=kinds.count, default=Photograph)


def _by_name(path: Path, besides: Sequence[Path] = ()) -> type[Kind]:
    kind = KINDS.get(suffix_of(path), Photograph)
    rather = Raster.holds(path) or (besides and suffix_of(besides[0]) in Raster.label_suffixes)
    return Raster if kind is Photograph and rather else kind
