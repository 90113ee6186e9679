"""`crfrnn train` with the tests' network, in a process of its own: python -m tests.support.train_process CONFIG OUT."""

import sys

import torch

from crfrnn.cli import main
from crfrnn.networks.unary import UNARIES
from tests.support.tiny import Tiny

if __name__ == "__main__":
    torch.set_num_threads(1)
    UNARIES["tiny"] = Tiny
    sys.exit(main(["train", "--config", sys.argv[1], "--out", sys.argv[2]]))
