"""The picture of the page in docs/serve.md: `python -m diagnostics.page_picture [phone.png]`, with Chromium.

With the name of a file, the page as a phone shows it goes there.
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.support.places import ROOT
from tests.support.server import CHROMIUM, serving

SHOWN = (1024, 900)  # pixels, at most


def photograph(address: str, width: int, height: int) -> Image.Image:
    """The sample with strokes, segmented."""
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser,
    ):
        page = browser.new_page(viewport={"width": width, "height": height}, locale="en-US")
        page.goto(address)
        page.locator("#tab-strokes-button").click()
        page.locator("#sample-strokes").click()
        page.wait_for_function(
            "[...document.querySelectorAll('#comparison img')].filter(i => i.naturalWidth).length >= 2", timeout=120_000
        )
        page.wait_for_timeout(3000)  # the slider and the canvas settle
        return Image.open(io.BytesIO(page.screenshot(full_page=True)))


if __name__ == "__main__":
    with serving() as (address, _, _):
        phone = photograph(address, 390, 844)  # first, so that the other one says no seconds of compiling
        if sys.argv[1:]:
            phone.save(Path(sys.argv[1]))
        picture = photograph(address, 1280, 1000).convert("RGB")
        picture.thumbnail(SHOWN, Image.Resampling.LANCZOS)
        picture.save(ROOT / "docs/serve-strokes.png", optimize=True)
