"""Medians of CUDA event timings; a stand-in where there is no GPU."""

import statistics
import time
from collections.abc import Callable

import torch

WARM_UP = 3
RUNS = 21
SECONDS = 4.0  # for all runs of one figure, after the warm-up


def median_ms(call: Callable[[], object], runs: int = RUNS) -> float:
    """Milliseconds of one call on the current GPU, each run between two events of its own."""
    for _ in range(WARM_UP):
        call()
    torch.cuda.synchronize()
    times = []
    start = time.perf_counter()
    while len(times) < runs and (len(times) < 3 or time.perf_counter() - start < SECONDS):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        call()
        after.record()
        after.synchronize()
        times.append(before.elapsed_time(after))
    return statistics.median(times)


def cpu_ms(call: Callable[[], object], runs: int = 3) -> float:
    """Milliseconds of one call on the CPU."""
    call()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def stand_in_ms(call: Callable[[], object], runs: int = 1) -> float:
    """For --dry-run: the call is made twice, as it would be for a median, and nothing is measured."""
    del runs
    call()
    call()
    return float("nan")


def in_turn(calls: list[Callable[[], object]]) -> Callable[[], object]:
    """One call that makes the next of several, so that a figure is not that of inputs left in the cache."""
    turn = 0

    def call() -> object:
        nonlocal turn
        turn += 1
        return calls[turn % len(calls)]()

    return call
