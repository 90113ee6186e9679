"""CRF-as-RNN and dense CRFs: sharp segmentations, from somebody's predictions or end to end with a network."""

import importlib
from typing import TYPE_CHECKING, Any

from crfrnn.runtime import forks as _forks  # noqa: F401 (forked children, from here on)

if TYPE_CHECKING:
    from crfrnn import losses
    from crfrnn.commands import cluster
    from crfrnn.commands.fit.fit import fit
    from crfrnn.commands.metrics import Evaluation
    from crfrnn.commands.refine.points import point_kernels, refine_points
    from crfrnn.commands.refine.refine import refine
    from crfrnn.commands.refine.scenes import refine_windows
    from crfrnn.commands.segment.segment import segment_photo, segment_strokes
    from crfrnn.filtering.gaussian_filter import GaussianFilter, gaussian_filter
    from crfrnn.filtering.guide_units import standardized
    from crfrnn.filtering.kernels import Bilateral, Features, Spatial
    from crfrnn.inference import solvers
    from crfrnn.inference.recurrence import iterates, mean_field, trajectory
    from crfrnn.layer import CRFRNN
    from crfrnn.networks.models import load_model
    from crfrnn.networks.network import SegmentationNetwork
    from crfrnn.networks.unary import build_unary
    from crfrnn.networks.weights import load_crfasrnn, load_efficientnet_lite0, load_vgg16
    from crfrnn.parameters import PRESETS, CRFParameters

# Each comes from its room when somebody asks for it: the CRF alone needs neither networks nor the hub, and the command
# line's help not even torch.
_HOMES = {
    "CRFRNN": "layer",
    "Bilateral": "filtering.kernels",
    "Spatial": "filtering.kernels",
    "Features": "filtering.kernels",
    "GaussianFilter": "filtering.gaussian_filter",
    "gaussian_filter": "filtering.gaussian_filter",
    "standardized": "filtering.guide_units",
    "mean_field": "inference.recurrence",
    "iterates": "inference.recurrence",
    "trajectory": "inference.recurrence",
    "solvers": "inference",
    "losses": "",
    "CRFParameters": "parameters",
    "PRESETS": "parameters",
    "cluster": "commands",
    "refine": "commands.refine.refine",
    "refine_points": "commands.refine.points",
    "refine_windows": "commands.refine.scenes",
    "point_kernels": "commands.refine.points",
    "fit": "commands.fit.fit",
    "segment_photo": "commands.segment.segment",
    "segment_strokes": "commands.segment.segment",
    "SegmentationNetwork": "networks.network",
    "build_unary": "networks.unary",
    "load_model": "networks.models",
    "load_crfasrnn": "networks.weights",
    "load_efficientnet_lite0": "networks.weights",
    "load_vgg16": "networks.weights",
    "Evaluation": "commands.metrics",
}
_ROOMS = "cluster", "losses", "solvers"
__all__ = [
    "CRFRNN",
    "PRESETS",
    "Bilateral",
    "CRFParameters",
    "Evaluation",
    "Features",
    "GaussianFilter",
    "SegmentationNetwork",
    "Spatial",
    "build_unary",
    "cluster",
    "fit",
    "gaussian_filter",
    "iterates",
    "load_crfasrnn",
    "load_efficientnet_lite0",
    "load_model",
    "load_vgg16",
    "losses",
    "mean_field",
    "point_kernels",
    "refine",
    "refine_points",
    "refine_windows",
    "segment_photo",
    "segment_strokes",
    "solvers",
    "standardized",
    "trajectory",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES[name]}".rstrip(".")
    return importlib.import_module(f"{home}.{name}") if name in _ROOMS else getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
