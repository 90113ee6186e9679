"""Where the repository is, and the real data beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"  # tests that want it are skipped where it is absent
