"""`--ray`: the images of `crfrnn refine` and `crfrnn segment` over the machines of a Ray cluster, and Ray's data sets.

Ray is imported where it is asked for, and not here.
"""

from typing import TYPE_CHECKING, Any

from crfrnn.runtime.loading import load

if TYPE_CHECKING:
    from crfrnn.commands.cluster.dataset import RefineBatch, refine_dataset

__all__ = ["RefineBatch", "refine_dataset"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load("crfrnn.commands.cluster.dataset", name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
