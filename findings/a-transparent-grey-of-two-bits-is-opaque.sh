#!/usr/bin/env bash
# Pillow 12.3.0: a grey PNG may name one level that is transparent (its chunk tRNS). With 8 bits Pillow honours it:
# convert("RGBA") makes those pixels transparent. With 2 bits it scales the pixels to 0..255 and leaves the level as the
# file has it, 0..3, so that level 2 is the pixel value 170 and no pixel matches: nothing is transparent, and no
# error says so. Level 0, which is 0 in both, works. Small label maps and masks are written with few bits by tools that
# make PNGs small; a map whose "unlabelled" is its transparent level 1 or 2 is read as labelled everywhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pillow==12.3.0
cat >"$folder/case.py" <<'CASE'
import io
import struct
import zlib

from PIL import Image


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(bits, levels, transparent):
    """A grey PNG of one line."""
    packed = 0
    for level in levels:
        packed = packed << bits | level
    line = b"\0" + packed.to_bytes(len(levels) * bits // 8, "big")
    header = struct.pack(">IIBBBBB", len(levels), 1, bits, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"tRNS", struct.pack(">H", transparent)), (b"IDAT", zlib.compress(line)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def read(*arguments):
    image = Image.open(io.BytesIO(png(*arguments)))
    image.load()
    pixels, alpha = list(image.convert("L").getdata()), list(image.convert("RGBA").getchannel("A").getdata())
    print(f"{arguments[0]} bits, level {arguments[2]} transparent: {pixels}, tRNS {image.info['transparency']}, alpha {alpha}")
    return pixels, alpha


assert read(8, [0, 1, 2, 3], 2) == ([0, 1, 2, 3], [255, 255, 0, 255])
assert read(2, [0, 1, 2, 3], 2) == ([0, 85, 170, 255], [255, 255, 255, 255])
assert read(2, [0, 1, 2, 3], 0) == ([0, 85, 170, 255], [0, 255, 255, 255])
CASE
"$folder/venv/bin/python" -W ignore "$folder/case.py"
