#!/usr/bin/env bash
# torch 2.13.0 on a CPU: `x.argmax(0)` of label planes, (labels, height, width), takes several times as long as
# `x.max(0).indices`, which finds the same numbers and the maxima besides; of two labels it takes tens of times as long.
# NumPy's argmax of the same memory is also faster than torch's. One expects argmax to be the cheaper one, as it does less.
# A label map is the argmax of every segmentation: of 21 planes of 500 x 375 it costs as much as a whole mean-field
# iteration of a dense CRF. One thread, as a data loader or a server's worker has it.
# Seen on one core of a Xeon of 2.6 GHz that had other work to do: 103 ms and 21 ms (NumPy 30 ms) for 21 labels, 49 ms and
# 1.3 ms for two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cat >"$folder/case.py" <<'CASE'
import statistics
import time

import torch

torch.set_num_threads(1)
torch.manual_seed(0)


def milliseconds(call):
    times = []
    for _ in range(15):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[3:])


for labels, least in ((21, 2), (2, 5)):
    planes = torch.rand(labels, 375, 500)
    array = planes.numpy()
    assert torch.equal(planes.argmax(0), planes.max(0).indices)
    argmax, largest = milliseconds(lambda: planes.argmax(0)), milliseconds(lambda: planes.max(0).indices)
    print(
        f"{labels} labels: argmax(0) {argmax:.1f} ms, max(0).indices {largest:.1f} ms,"
        f" numpy argmax {milliseconds(lambda: array.argmax(0)):.1f} ms"
    )
    assert argmax > least * largest
CASE
"$folder/venv/bin/python" "$folder/case.py"
