"""CRF-as-RNN and dense CRFs: sharp segmentations, from somebody's predictions or end to end with a network."""

import importlib
from typing import TYPE_CHECKING, Any

from crfrnn.filtering.gaussian_filter import GaussianFilter, gaussian_filter
from crfrnn.filtering.kernels import Bilateral, Features, Spatial
from crfrnn.layer import CRFRNN
from crfrnn.recurrence import mean_field
from crfrnn.refine import refine

if TYPE_CHECKING:
    from crfrnn.fitting.fit import fit
    from crfrnn.network import SegmentationNetwork
    from crfrnn.unary import build_unary

__all__ = [
    "CRFRNN",
    "Bilateral",
    "Features",
    "GaussianFilter",
    "SegmentationNetwork",
    "Spatial",
    "build_unary",
    "fit",
    "gaussian_filter",
    "mean_field",
    "refine",
]
__version__ = "0.1.0"

# The CRF alone needs neither networks nor the hub: these come when somebody asks for them.
_LATER = {"SegmentationNetwork": "crfrnn.network", "build_unary": "crfrnn.unary", "fit": "crfrnn.fitting.fit"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
