#!/usr/bin/env bash
# rasterio 1.4.4 (GDAL 3.10.3): GDAL_CACHEMAX counts megabytes for whoever sets it for GDAL, as a variable of the
# environment or with --config (numbers below 100,000 do). `rasterio.Env(GDAL_CACHEMAX=64)` hands the number to a
# function that counts bytes: a cache of 64 bytes, smaller than any block. Nothing is said, and what is read is right.
# A compressed GeoTIFF of 2048 x 2048 labels in tiles of 256, written in windows of 100 x 100 as a program does that
# refines a scene piece by piece, has 1,145,013 bytes with the cache that rasterio has by itself and 5,152,667 with
# Env(GDAL_CACHEMAX=64), 4.5 times as many, and takes four times as long: each window decodes, changes and encodes its
# tiles anew, and a tile that has grown goes to the end of the file and leaves a hole. With GDAL_CACHEMAX=64 in the
# environment, or Env(GDAL_CACHEMAX=64 * 2**20), it has 1,145,013 bytes; Env(GDAL_CACHEMAX="64MB"), which GDAL itself
# takes, is a TypeError. Whoever bounds the memory of refining large scenes does so by bytes, or the files swell.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rasterio==1.4.4 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
import os
import sys

import numpy as np
import rasterio
from rasterio.windows import Window

SIDE, STEP = 2048, 100


def written(**options):
    """Bytes of the file."""
    rng = np.random.default_rng(0)
    how = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": SIDE, "height": SIDE, "compress": "deflate"}
    with rasterio.Env(**options), rasterio.open("scene.tif", "w", tiled=True, blockxsize=256, blockysize=256, **how) as f:
        for top in range(0, SIDE, STEP):
            for left in range(0, SIDE, STEP):
                height, width = min(STEP, SIDE - top), min(STEP, SIDE - left)
                labels = rng.integers(0, 4, (height, width), dtype=np.uint8)
                f.write(labels, 1, window=Window(left, top, width, height))
    return os.path.getsize("scene.tif")


assert rasterio.__gdal_version__ == "3.10.3"
if len(sys.argv) > 1:
    print("in the environment, 64:", in_environment := written())
    assert in_environment < 1.1 * int(sys.argv[1])
else:
    usual, bytes_, megabytes = written(), written(GDAL_CACHEMAX=64), written(GDAL_CACHEMAX=64 * 2**20)
    print(usual, file=sys.stderr)
    print(f"usual cache: {usual}, Env(64): {bytes_}, Env(64 * 2**20): {megabytes}")
    assert bytes_ > 4 * usual
    assert megabytes < 1.1 * usual
    try:
        with rasterio.Env(GDAL_CACHEMAX="64MB"):
            raise AssertionError("taken")
    except TypeError as error:
        print("Env('64MB'):", error)
CASE
cd "$folder"
usual=$(venv/bin/python -W ignore case.py 2>&1 >"$folder/said")
cat "$folder/said"
GDAL_CACHEMAX=64 venv/bin/python -W ignore case.py "$usual"
