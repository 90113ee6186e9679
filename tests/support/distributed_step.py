"""One rank of a DistributedDataParallel step; started by test_distributed.py, which compares the ranks.

python -m tests.support.distributed_step RANK WORLD_SIZE FOLDER
"""

import os
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from crfrnn import CRFRNN, Bilateral, Spatial
from tests.support.problems import random_values

LABELS = 3


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unary = torch.nn.Conv2d(3, LABELS, 1)
        self.crf = CRFRNN(LABELS, kernels=(Bilateral(6, 40), Spatial(2)), iterations=3, learn_bandwidths=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.crf(self.unary(image / 60), image)


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def image_of(rank: int) -> torch.Tensor:
    return 60 * random_values(1, 3, 12, 15, seed=rank)


def loss_of(module: torch.nn.Module, rank: int) -> torch.Tensor:
    logits = module(image_of(rank))
    target = torch.full((1, *logits.shape[2:]), rank % LABELS)
    return torch.nn.functional.cross_entropy(logits, target)


def main(rank: int, world_size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=world_size
    )
    module = DistributedDataParallel(network())
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    loss_of(module, rank).backward()
    gradients = {name: parameter.grad for name, parameter in module.module.named_parameters()}
    optimiser.step()
    torch.save({"gradients": gradients, "state": module.module.state_dict()}, folder / f"rank{rank}.pt")
    del module, optimiser, gradients  # the reducer waits for its group when it goes: it must go first
    torch.distributed.barrier()  # and a rank that is long done must not leave the other alone
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    # gloo's threads outlive their group (pytorch/pytorch#190489): one that asks for the GIL while the interpreter
    # shuts down aborts the process, with every result on the disk. So the interpreter does not shut down.
    os._exit(0)
