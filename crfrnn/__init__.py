"""CRF-as-RNN and dense CRFs: sharp segmentations, from somebody's predictions or end to end with a network."""

from crfrnn.filtering.gaussian_filter import GaussianFilter, gaussian_filter
from crfrnn.filtering.kernels import Bilateral, Features, Spatial
from crfrnn.layer import CRFRNN
from crfrnn.recurrence import mean_field
from crfrnn.refine import refine

__all__ = [
    "CRFRNN",
    "Bilateral",
    "Features",
    "GaussianFilter",
    "Spatial",
    "gaussian_filter",
    "mean_field",
    "refine",
]
__version__ = "0.1.0"
