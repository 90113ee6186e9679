#!/usr/bin/env bash
# torch 2.13.0 on a CPU: `torch.histc(labels.float(), bins=classes, min=0, max=classes - 1)` is how much code that descends
# from mmsegmentation and semseg counts pixels for its IoU. It counts in float32, one pixel at a time: a class that has
# 16,777,216 pixels gets no more (2**24 + 1 is 2**24). Each thread counts its share by itself, so that the result depends
# on the number of threads: of 29,947,500 pixels one thread says 16,777,216, two say all, and more move the limit further.
# torch.histogram and torch.bincount with float32 weights stop there as well; bincount without weights counts in integers.
# An aerial scene of 6000 x 6000 (Potsdam) has 36 million. The IoU of its large class comes out too high, and otherwise in
# a data loader's worker, which has one thread, than in the main process. That a refinement mended the large class, or
# spoiled it, is not seen at all. PyTorch has had an issue about wrong histograms of large tensors since 2023 (96613).
# Seen for 5500 x 5500, 99 % of it one class, of which a tenth is predicted wrongly: its IoU is 0.899; by one thread 1.000.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
import torch

CLASSES = 6


def histc(labels):
    return torch.histc(labels.float(), bins=CLASSES, min=0, max=CLASSES - 1)


def bincount(labels):
    return torch.bincount(labels, minlength=CLASSES)


def iou(count, predicted, truth):
    both = count(predicted[predicted == truth])
    return (both[0] / (count(predicted)[0] + count(truth)[0] - both[0])).item()


truth = torch.zeros(5500 * 5500, dtype=torch.int64)
truth[::100] = 1
predicted = truth.clone()
predicted[1::10] = 2  # all of them of class 0
pixels = int((truth == 0).sum())
found = {}
for threads in 1, 2:
    torch.set_num_threads(threads)
    found[threads] = int(histc(truth)[0]), iou(histc, predicted, truth)
    print(f"{threads} threads: histc counts {found[threads][0]} of {pixels} pixels, IoU {found[threads][1]:.4f}")
exact = iou(bincount, predicted, truth)
print(f"bincount: {int(bincount(truth)[0])}, IoU {exact:.4f}")
assert 0.89 < exact < 0.91
assert int(bincount(truth)[0]) == pixels == found[2][0]
assert found[1] == (2**24, 1.0)
assert abs(found[2][1] - exact) < 1e-6

torch.set_num_threads(1)
weighted = torch.bincount(truth, torch.ones(len(truth)))
others = torch.histogram(truth.float(), CLASSES, range=(0, CLASSES - 1))[0], weighted
for name, counts in zip(("histogram", "bincount with weights"), others, strict=True):
    print(f"{name}: {int(counts[0])}")
    assert int(counts[0]) == 2**24
CASE
"$folder/venv/bin/python" "$folder/case.py"
