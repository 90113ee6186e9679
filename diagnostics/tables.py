"""Tables of figures inside pages of docs/."""

from pathlib import Path


def replace_table(page: Path, name: str, rows: list[str]) -> None:
    """Put the rows where the page has ``<!-- name -->``, in place of the table that follows it."""
    text = page.read_text() if page.exists() else ""
    before, marker, after = text.partition(f"<!-- {name} -->\n")
    if not marker:
        raise ValueError(f"{page}: has no line <!-- {name} --> for the table")
    lines = after.split("\n")
    while lines and (not lines[0] or lines[0].startswith("|")):
        lines.pop(0)
    page.write_text(before + marker + "\n" + "\n".join(rows) + "\n\n" + "\n".join(lines))
