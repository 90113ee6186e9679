#!/usr/bin/env bash
# rasterio 1.4.4 (GDAL 3.10.3): GeoTIFFs hold labels of 64 bits, and GDAL has functions of its own for their nodata
# values; rasterio hands nodata to GDAL as a float. Told nodata=2**53 + 1 for int64 it writes 9007199254740992 into the
# file: pixels that hold what was told count as data, and those of the class one below are masked. Told nodata=-2**63,
# the smallest int64, which tables and label images take for "nothing", it writes "-9.2233720368547758e+18", and reads
# of that file say nodata -9.0: nothing that was meant is masked, and pixels of -9 would be. 2**63 - 1 is refused. No
# warning in either case. A file with the true number in its tag, as GDAL's own tools leave it, is masked rightly, though
# `nodata` still shows a float. Identifiers of segments and hashes as labels come in 64 bits; masks that a refinement
# must leave alone are then other pixels than the ones that were marked. Below 2**53 all is well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rasterio==1.4.4 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
from pathlib import Path

import numpy as np
import rasterio


def seen(path):
    with rasterio.open(path) as file:
        return file.nodata, file.read(1).tolist()[0], (file.read_masks(1)[0] == 0).tolist()


def write(nodata, *others):
    labels = np.array([[nodata, *others]], np.int64)
    how = {"driver": "GTiff", "dtype": "int64", "count": 1, "height": 1, "width": labels.size}
    with rasterio.open("labels.tif", "w", nodata=nodata, **how) as file:
        file.write(labels, 1)
    return seen("labels.tif")


assert rasterio.__gdal_version__ == "3.10.3"
for nodata, others, wanted in (
    (-1, (5,), (-1.0, [-1, 5], [True, False])),
    (2**53 + 1, (2**53,), (2.0**53, [2**53 + 1, 2**53], [False, True])),
    (-(2**63), (-9,), (-9.0, [-(2**63), -9], [False, True])),
):
    found = write(nodata, *others)
    print(f"told nodata {nodata}: says {found[0]}, pixels {found[1]}, masked {found[2]}")
    assert found == wanted

wrong = b"-9.2233720368547758e+18"
raw = Path("labels.tif").read_bytes()
assert raw.count(wrong) == 1
Path("true.tif").write_bytes(raw.replace(wrong, str(-(2**63)).encode().ljust(len(wrong), b"\0")))
found = seen("true.tif")
print(f"with {-(2**63)} in the tag: says {found[0]}, masked {found[2]}")
assert found[2] == [True, False]
try:
    write(2**63 - 1)
    raise AssertionError("taken")
except ValueError as error:
    print(error)
CASE
cd "$folder"
venv/bin/python -W ignore case.py
