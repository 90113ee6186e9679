"""What may be done with the package's models is said once, to each user, where one is used for the first time."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from crfrnn.networks.models import MODELS


def say_licence(model: str) -> None:
    """One line on stderr at the first use of a model that comes with the package; an empty file remembers it."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "crfrnn")
    told = folder / f"licence-of-{model}"
    if model not in MODELS or told.exists():
        return
    card = MODELS[model] / "README.md"
    print(f"note: the model {model} is for research and other non-commercial use ({card}); said once", file=sys.stderr)
    with suppress(OSError):  # where nothing can be kept it is said again
        folder.mkdir(parents=True, exist_ok=True)
        told.touch()
