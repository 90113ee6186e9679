#!/usr/bin/env bash
# Pillow 13.0.0: an indexed image gets the colours of its classes by putpalette, and 255, "void" in VOC and Cityscapes, has
# none. PNG: the number of bits follows from the number of colours, not from the pixels, and what does not fit is cut off:
# with 2 colours 255 is written as 1, with 4 as 3, with 16 as 15, the last class in each case, with Potsdam's 6 as 15, a
# class that is not there. save(..., bits=8) changes nothing. Void pixels, the seam around each object, then count in
# training and in IoU. From 17 colours on, as VOC's 21, 255 stays: what works there fails here. GIF below 512 x 512
# renumbers the classes in any palette: 0, 1, 5, 255 come back as 0 to 3. TIFF and BMP keep the numbers. No error, no warning.
# putpalette(colours.ljust(768, b"\0")), all 256, keeps a PNG as it was.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==13.0.0 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
import io
import warnings

import numpy as np
from PIL import Image

warnings.simplefilter("error")


def back(labels, colours, kind, side=64, padded=0, **options):
    """Labels, the first of an image, written with a palette of so many colours and read again."""
    pixels, file = np.zeros((side, side), np.uint8), io.BytesIO()
    pixels[0, : len(labels)] = labels
    image = Image.fromarray(pixels)
    image.putpalette(bytes(range(3 * colours)).ljust(padded, b"\0"))
    assert np.array_equal(image, pixels)
    image.save(file, kind, **options)
    read = Image.open(file)
    assert read.mode == "P"
    found = np.asarray(read)[0, : len(labels)].tolist()
    print(f"{kind}, {side} x {side}, {colours} colours, padded to {padded} bytes, {options}: {labels} -> {found}")
    return found


VOID = 255
for colours, cut in (2, 1), (4, 3), (6, 15), (16, 15), (17, VOID), (21, VOID):
    assert back([0, 1, VOID], colours, "PNG") == [0, 1, cut]
assert back([0, 1, VOID], 6, "PNG", bits=8) == [0, 1, 15]
assert back([0, 1, VOID], 6, "PNG", padded=768) == [0, 1, VOID]
for colours in 6, 21:
    assert back([0, 1, 5, VOID], colours, "GIF") == [0, 1, 2, 3]
for kind, side in ("GIF", 512), ("TIFF", 64), ("BMP", 64):
    assert back([0, 1, 5, VOID], 6, kind, side) == [0, 1, 5, VOID]
CASE
"$folder/venv/bin/python" "$folder/case.py"
