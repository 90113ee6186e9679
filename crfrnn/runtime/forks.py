"""What a forked child needs: it has none of its parent's threads.

OpenMP, which torch's own operations divide their work with, waits for ever for the team that the child lacks, once the
parent has had one; nobody can ask it whether. So from the import of the package on a child has one thread in torch.
"""

import os
import sys


def _one_thread() -> None:
    torch = sys.modules.get("torch")  # the import of the package does not need it
    if torch is not None:
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)
