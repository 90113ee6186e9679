"""Modules whose optional package is not installed are left out of the doctests."""

from importlib.util import find_spec

NEED = {
    "gradio": ["crfrnn/web/*.py"],
    "triton": ["crfrnn/**/*_gpu.py"],
    "lightning": ["crfrnn/commands/train/stage/*.py"],
}

collect_ignore_glob = [files for package, where in NEED.items() if find_spec(package) is None for files in where]
