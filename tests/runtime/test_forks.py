"""Children that are forked after a call in the parent compute the same, and end.

Each case is a process of its own, with two threads: torch's team of threads, once begun, is what a child lacks.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from crfrnn import CRFRNN, Bilateral, refine
from crfrnn.pydensecrf import densecrf
from crfrnn.pydensecrf.utils import unary_from_softmax
from tests.support.places import ROOT

LABELS = 21
SECONDS = 60


def inputs(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.random.default_rng(0)
    p = numbers.dirichlet(np.ones(LABELS), size).transpose(2, 0, 1)
    return numbers.integers(0, 256, (*size, 3), dtype=np.uint8), np.ascontiguousarray(p, np.float32)


def drop_in(size: tuple[int, int]) -> np.ndarray:
    image, p = inputs(size)
    crf = densecrf.DenseCRF2D(size[1], size[0], LABELS)
    crf.setUnaryEnergy(unary_from_softmax(p))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
    return np.asarray(crf.inference(5))


def one_image(size: tuple[int, int]) -> np.ndarray:
    return refine(*inputs(size))


def list_of_images(size: tuple[int, int]) -> np.ndarray:
    image, p = inputs(size)
    return np.stack(refine([image] * 3, [p] * 3))


def layer(size: tuple[int, int]) -> np.ndarray:
    image, p = inputs(size)
    logits = torch.from_numpy(p).log()[None].requires_grad_()
    CRFRNN(LABELS)(logits, torch.from_numpy(image).permute(2, 0, 1)[None].float()).square().sum().backward()
    assert logits.grad is not None
    return logits.grad.numpy()


def exact(size: tuple[int, int]) -> np.ndarray:
    """Nothing but torch's own operations."""
    return refine(*inputs(size), kernels=[Bilateral(60, 10, method="exact")])


SMALL, LARGE = (8, 8), (375, 500)
CASES = [(call, SMALL) for call in (drop_in, one_image, list_of_images, layer, exact)]
CASES += [(call, LARGE) for call in (drop_in, list_of_images, layer)]


def compare(call: Callable, size: tuple[int, int], expected: np.ndarray) -> bool:
    """Ours are bit-equal for any number of threads; torch's softmax is not, at the end of the drop-in."""
    return np.allclose(call(size), expected, rtol=0, atol=1e-7 if call is drop_in else 0)


def fork_after_a_call(number: int) -> None:
    call, size = CASES[number]
    torch.set_num_threads(2)
    case = call, size, call(size)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        assert all(pool.starmap_async(compare, [case] * 3).get(SECONDS))
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert all(executor.submit(compare, *case).result(SECONDS) for _ in range(2))
    child = os.fork()
    if not child:
        os._exit(0 if compare(*case) else 3)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.get_num_threads() == 2  # the parent keeps its own


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{call.__name__} {size}" for call, size in CASES])
def test_forked_children(number):
    code = f"from tests.runtime.test_forks import fork_after_a_call; fork_after_a_call({number})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=4 * SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr


def fork_after_torch_alone(number: int) -> None:
    """The parent's network has computed, and nothing of ours."""
    call, size = CASES[number]
    torch.set_num_threads(2)
    torch.softmax(torch.nn.Conv2d(3, LABELS, 3)(torch.rand(1, 3, 300, 400)), dim=1)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for q in pool.map_async(call, [size] * 2).get(SECONDS):
            assert np.isfinite(q).all()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("number", range(5), ids=[call.__name__ for call, _ in CASES[:5]])
def test_forked_before_the_first_call(number):
    code = f"from tests.runtime.test_forks import fork_after_torch_alone; fork_after_torch_alone({number})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=2 * SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr


def begin_anew(method: str) -> None:
    torch.set_num_threads(2)
    cases = [(call, LARGE, call(LARGE)) for call in (drop_in, one_image)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert all(pool.starmap_async(compare, cases).get(2 * SECONDS))


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted({"forkserver", "spawn"} & {*multiprocessing.get_all_start_methods()}))
def test_children_that_begin_anew(method):
    code = f"from tests.runtime.test_forks import begin_anew; begin_anew({method!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=4 * SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
