#!/usr/bin/env bash
# laspy 2.7.0: a .las that ends early, as a copy or download that broke off does, is read as if it were whole when the
# cut falls between two point records (one of 34 places, in this format): `laspy.read` gives 20 points where the header
# says 50, without an exception or a warning. It logs an error, "Could only read 20 of the requested 50 points", but its
# logger has a NullHandler: a program that did not set up logging shows nothing. Cut within a record the file raises
# ValueError, and a .laz (lazrs 0.8.2) cut anywhere in its points LazrsError, so one expects an exception here too.
# Predictions for 50 points then meet 20, or a cloud is refined and written without what was lost, and the header of
# what laspy writes says 20. Who reads .las files has to compare `len(las.points)` with `las.header.point_count`, which
# is 50 until the cloud is written.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q laspy==2.7.0 lazrs==0.8.2 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
import io
import logging
import sys
import warnings

import laspy
import numpy as np

warnings.simplefilter("error")
logged, shown = [], io.StringIO()


def written(cloud, compressed=False):
    file = io.BytesIO()
    cloud.write(file, do_compress=compressed)
    return file.getvalue()


def error(content):
    try:
        laspy.read(io.BytesIO(content))
    except Exception as raised:
        return f"{type(raised).__name__}: {raised}"
    return "none"


cloud = laspy.create(point_format=3, file_version="1.2")
cloud.x = cloud.y = cloud.z = np.arange(50.0)
las, laz = written(cloud), written(cloud, compressed=True)
whole = laspy.read(io.BytesIO(las))
start, size = whole.header.offset_to_point_data, whole.point_format.size
assert len(las) == start + 50 * size
assert len(whole.points) == 50

stderr, sys.stderr = sys.stderr, shown
cut = laspy.read(io.BytesIO(las[: start + 20 * size]))
sys.stderr = stderr
before = len(cut.points), cut.header.point_count
after = laspy.read(io.BytesIO(written(cut))).header.point_count
print(f"cut between two records: {before[0]} points, header {before[1]}, shown {shown.getvalue()!r}; rewritten {after}")
assert (before, after, shown.getvalue()) == ((20, 50), 20, "")

handler = logging.Handler()
handler.emit = lambda record: logged.append(f"{record.levelname}: {record.getMessage()}")
logging.getLogger("laspy").addHandler(handler)
laspy.read(io.BytesIO(las[: start + 20 * size]))
print("logged, for who listens:", logged)
assert logged == ["ERROR: Could only read 20 of the requested 50 points"]

within = error(las[: start + 20 * size + 7])
points = laspy.read(io.BytesIO(laz)).header.offset_to_point_data
compressed = {error(laz[:end]) for end in range(points, len(laz))}
print("cut within a record:", within)
print("a .laz, cut anywhere in its points:", compressed)
assert within.startswith("ValueError")
assert compressed
assert all(message.startswith("LazrsError") for message in compressed)
CASE
"$folder/venv/bin/python" "$folder/case.py"
