#!/usr/bin/env bash
# torch 2.13.0 on a CPU with AMX and avx512_bf16: autocast to bfloat16 makes the 1 x 1 convolutions of a MobileNet or an
# EfficientNet three times as fast, forward and backward, and the forward pass of its depthwise convolutions no slower.
# One expects training to gain as well. But the gradient of a depthwise convolution takes several times as long in
# bfloat16: that of its input at stride 2 (here 5 x 5, 144 channels at 81 x 81: 33 ms instead of 2), and that of its
# weights at 5 x 5 (65 ms instead of 11). As a whole EfficientNet-Lite0 trains slower in bfloat16 than in float32 (1.0 s
# against 0.7 s for the backward pass of 8 crops of 320 x 320 on two cores). Whoever trains a small segmentation network
# on a CPU should keep its depthwise convolutions out of autocast: then the step takes a quarter less instead.
# Needs a CPU with AMX (Sapphire Rapids or later); elsewhere bfloat16 is emulated and everything is slow.
set -euo pipefail
if ! grep -qw amx_bf16 /proc/cpuinfo; then
  echo "no AMX here: the case is about CPUs that compute in bfloat16"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cat >"$folder/case.py" <<'CASE'
import statistics
import time

import torch
from torch.nn.functional import conv2d

torch.manual_seed(0)


def milliseconds(channels, out, size, kernel, stride, groups, dtype, mask):
    """Of one gradient of a convolution: mask says of what (input, weight, bias)."""
    x = torch.randn(8, channels, size, size, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.randn(out, channels // groups, kernel, kernel, dtype=dtype)
    padding = kernel // 2
    gradient = torch.randn_like(conv2d(x, weight, None, stride, padding, 1, groups))
    arguments = (gradient, x, weight, [out], [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], groups, mask)
    times = []
    for _ in range(12):
        start = time.perf_counter()
        torch.ops.aten.convolution_backward(*arguments)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[2:])


CASES = {
    "1 x 1, 144 to 40 channels, both gradients": ((144, 40, 81, 1, 1, 1), [True, True, False]),
    "depthwise 5 x 5, stride 2, gradient of the input": ((144, 144, 81, 5, 2, 144), [True, False, False]),
    "depthwise 5 x 5, stride 1, gradient of the weights": ((240, 240, 41, 5, 1, 240), [False, True, False]),
}
ratios = {}
for name, (shape, mask) in CASES.items():
    single, half = (milliseconds(*shape, dtype, mask) for dtype in (torch.float32, torch.bfloat16))
    ratios[name] = half / single
    print(f"{name}: float32 {single:.1f} ms, bfloat16 {half:.1f} ms, {half / single:.1f} times as long")
ordinary, inputs, weights = ratios.values()
assert ordinary < 1, ordinary
assert inputs > 3, inputs
assert weights > 2, weights
CASE
"$folder/venv/bin/python" "$folder/case.py"
