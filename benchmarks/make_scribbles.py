"""A data set whose training masks are scribbles, drawn by the rule of `ruled_strokes`: to train on few labels.

    python -m benchmarks.make_scribbles RECIPE.yaml --data DATA_SET --out runs/scribbles/data [--share 0.03]

RECIPE's ``data:`` says how DATA_SET is laid out, and which images are trained on. Their masks are drawn anew, void
where no stroke is; all other files are links to those of DATA_SET. The same data give the same strokes.
"""

import argparse
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.ruled_strokes import NOTHING, ruled_strokes, without_small
from crfrnn.data.config import read_data_config
from crfrnn.data.datasets import VOID
from crfrnn.data.splits import open_split


def make_scribbles(recipe: Path, data: Path, out: Path, share: float) -> float:
    """The share of the pixels that is labelled then."""
    config = read_data_config(recipe, str(data))
    training = open_split(config, config.train)
    masks = {pair.mask.resolve(): pair.name for pair in training.pairs}
    labelled, pixels = 0, 0
    for file in sorted(path for path in data.rglob("*") if path.is_file()):
        place = out / file.relative_to(data)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.resolve() not in masks:
            place.symlink_to(file.resolve())
            continue
        truth = np.array(Image.open(file)).astype(np.int32)
        truth = without_small(np.where(np.isin(truth, list(training.classes.void)), VOID, truth))
        strokes = ruled_strokes(truth, zlib.crc32(masks[file.resolve()].encode()), share)
        Image.fromarray(np.where(strokes == NOTHING, VOID, strokes).astype(np.uint8)).save(place)
        labelled, pixels = labelled + int((strokes != NOTHING).sum()), pixels + strokes.size
    return labelled / max(1, pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--share", type=float, default=0.03, help="of the pixels; where there is room for it")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    share = make_scribbles(options.recipe, options.data, options.out, options.share)
    print(f"wrote {options.out}: {share:.2%} of the pixels of the training masks are labelled")


if __name__ == "__main__":
    main()
