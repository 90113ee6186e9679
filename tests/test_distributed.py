"""Two processes, gloo, one DistributedDataParallel step: both ranks end with the mean of both gradients."""

import subprocess
import sys

import pytest
import torch

from tests.support import distributed_step
from tests.support.compare import assert_equal
from tests.support.places import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_ranks(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.distributed_step", str(rank), "2", str(tmp_path)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            _, errors = rank.communicate(timeout=120)
            assert rank.returncode == 0, errors
    finally:
        for rank in ranks:
            rank.kill()
    results = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]

    module = distributed_step.network()
    loss = sum((distributed_step.loss_of(module, rank) for rank in range(2)), torch.zeros(())) / 2
    expected = dict(
        zip(dict(module.named_parameters()), torch.autograd.grad(loss, list(module.parameters())), strict=True)
    )
    assert expected["crf.kernel_weights"].any()
    for name, gradient in expected.items():
        assert_equal(f"rank 1's gradient of {name}", results[1]["gradients"][name], results[0]["gradients"][name], 0)
        assert_equal(f"gradient of {name}", results[0]["gradients"][name], gradient, 1e-5)
    for name, parameter in results[0]["state"].items():
        assert torch.equal(parameter, results[1]["state"][name])
