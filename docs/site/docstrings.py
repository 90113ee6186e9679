"""Docstrings are read in an editor first: shapes such as (B, C, *S) and norms such as |f| are written as they are."""

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(`+[^`]*`+)")


def escape(app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """``*S`` and ``|`` outside of code, as reStructuredText wants them."""
    for number, line in enumerate(lines):
        if line.lstrip().startswith(">>>"):
            continue
        parts = CODE.split(line)
        parts[::2] = [re.sub(r"(?<!\*)\*(?=[A-Za-z])|\|", r"\\\g<0>", part) for part in parts[::2]]
        lines[number] = "".join(parts)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", escape, priority=400)  # before napoleon
    return {"parallel_read_safe": True}
