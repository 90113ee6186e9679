"""What `crfrnn status` can be told."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StatusOptions:
    """Count what the shards of refine or segment did, failed to do and left to do.

    They are those that ran with --shard into a folder, and the last number of them where it changed; all machines of
    --ray together are one. Failed images are listed, and what is to be run again. The exit status is 0 where everything
    is done, and otherwise 1.

    Args:
        out: the folder of results, their --out.
    """

    out: str
