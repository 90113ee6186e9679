"""Tables and pictures as HTML, for notebooks."""

import base64
import io
from collections.abc import Sequence
from html import escape

from PIL import Image


def html_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text, the heading first.

    >>> html_table([["class", "IoU"], ["<cat>", "81.2"]])
    '<table><tr><th>class</th><th>IoU</th></tr><tr><td>&lt;cat&gt;</td><td>81.2</td></tr></table>'
    """
    lines = []
    for number, row in enumerate(rows):
        kind = "td" if number else "th"
        lines.append("".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def html_picture(picture: Image.Image, said: str) -> str:
    """The picture itself, within the page, and what is said of it where it is not seen."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    content = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="{escape(said)}" src="data:image/png;base64,{content}">'
