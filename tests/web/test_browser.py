"""The page in a real browser: every flow, what is shown, and where the requests go. Screenshots stay in a folder."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml
from PIL import Image
from skimage import data

from crfrnn.cli import main
from crfrnn.web.wording import CLASSES
from tests.support.server import CHROMIUM, missing, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing(browser=True)), reason=missing(browser=True) or "-"),
]

SCREENSHOTS = Path(os.environ.get("CRFRNN_SCREENSHOTS", "test-screenshots"))  # ignored by git
WAIT = 60_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def server() -> Iterator[tuple]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(server, browser, request) -> Iterator[Callable]:
    """Open the page as a visitor: checks afterwards that nothing went to another host and no script failed."""
    address = server[0]
    hosts: set[str] = set()
    errors: list[str] = []
    contexts = []

    def opened(locale: str = "en-US", width: int = 1280, height: int = 1000):
        context = browser.new_context(viewport={"width": width, "height": height}, locale=locale)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda sent: hosts.add(urlsplit(sent.url).hostname or urlsplit(sent.url).scheme))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#photo input[type=file]", state="attached")
        page.wait_for_selector("#told:has-text('.'), #told:has-text('。')")
        return page

    yield opened
    SCREENSHOTS.mkdir(exist_ok=True)
    for number, context in enumerate(contexts):
        for page in context.pages:
            page.screenshot(path=SCREENSHOTS / f"{request.node.name}{number or ''}.png", full_page=True)
        context.close()
    assert hosts <= {"127.0.0.1", "data", "blob"}, f"requests left the machine: {hosts}"
    assert errors == []


def told(page) -> str:
    return page.locator("#told").inner_text()


def classes(page) -> list[str]:
    return [re.sub(r" <?[\d.]+%$", "", text) for text in page.locator("#legend li").all_inner_texts()]


def wait_for_result(page, words: str = "Placing the edges changed") -> None:
    page.wait_for_selector(f"#told:has-text('{words}')")
    page.wait_for_function("[...document.querySelectorAll('#comparison img')].filter(i => i.naturalWidth).length >= 2")


def after_image(page) -> str:
    """The address of the picture under the slider's right half."""
    return "".join(str(image.get_attribute("src")) for image in page.locator("#comparison img").all()[:2])


def changed(page, before: str) -> None:
    sources = "[...document.querySelectorAll('#comparison img')].slice(0, 2).map(i => i.getAttribute('src')).join('')"
    page.wait_for_function(f"before => {sources} !== before", arg=before)


def set_slider(page, name: str, value: float) -> None:
    box = page.locator(f"#{name} input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def test_a_photo_is_uploaded_looked_at_and_taken_home(visit, tmp_path, monkeypatch):
    page = visit()
    photo = tmp_path / "rocket.jpg"
    Image.fromarray(data.rocket()).resize((1280, 854)).save(photo)
    page.locator("#photo input[type=file]").set_input_files(photo)
    wait_for_result(page)
    assert "Your photo has 1280 × 854 pixels" in told(page)
    assert set(classes(page)) <= {
        *["sky", "building", "pole", "road", "pavement", "tree", "fence", "car", "pedestrian", "bicyclist"],
        "sign symbol",
    }
    assert len(classes(page)) >= 2
    shares = [float(share) for share in re.findall(r"([\d.]+)%", page.locator("#legend").inner_text())]
    assert 99 < sum(shares) < 101

    # scrub: all iterations come from that run
    assert page.locator("#curve circle").count() == 10
    last = after_image(page)
    set_slider(page, "t", 1)
    page.wait_for_selector("#curve b:has-text('t = 1')")
    changed(page, last)
    set_slider(page, "t", 10)
    page.wait_for_selector("#curve b:has-text('t = 10')")
    page.evaluate(
        "window.seen = new Set(); new MutationObserver(() => seen.add(document.querySelector('#curve b')?.innerText))"
        ".observe(document.querySelector('#curve'), {subtree: true, childList: true, characterData: true})"
    )
    page.locator("#play").click()
    page.wait_for_function("seen.size >= 3 && document.querySelector('#curve b').innerText.startsWith('t = 10')")

    # settings
    page.locator("#settings button").first.click()
    before = after_image(page)
    set_slider(page, "bilateral-weight", 9)
    changed(page, before)
    page.locator("#preset input").click()
    page.get_by_role("option", name="pydensecrf").click()
    page.wait_for_function("document.querySelector('#theta-alpha input[type=number]').value == '80'")
    assert page.locator("#theta-beta input[type=number]").input_value() == "13"
    assert page.locator("#normalization input:checked").input_value() == "symmetric"
    before = after_image(page)
    set_slider(page, "iterations", 3)
    page.wait_for_selector("#curve b:has-text('t = 3')")
    changed(page, before)
    assert page.locator("#curve circle").count() == 3
    assert page.locator("#iterations input[type=number]").input_value() == "3"  # the preset does not take it back

    # downloads
    page.locator("#download").click()
    page.wait_for_selector("#files a[download]")
    for link in page.locator("#files a[download]").all():
        with page.expect_download() as download:
            link.click()
        download.value.save_as(tmp_path / download.value.suggested_filename)
    with Image.open(tmp_path / "labels.png") as labels:
        assert (labels.mode, labels.size) == ("P", (1280, 854))
        assert "road" in json.loads(labels.info["class_names"])
    with np.load(tmp_path / "probabilities.npz") as saved:
        np.testing.assert_allclose(saved["probabilities"].sum(axis=0, dtype=np.float32), 1, atol=0.01)
        marginals = saved["probabilities"]
    with Image.open(tmp_path / "overlay.jpg") as overlay:
        assert overlay.width == marginals.shape[2]
    with Image.open(tmp_path / "cutout.png") as cutout:
        assert (cutout.mode, cutout.size) == ("RGBA", (1280, 854))
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    assert settings["iterations"] == 3
    monkeypatch.chdir(tmp_path)
    np.save("p.npy", marginals)
    command = ["refine", "rocket.jpg", "--probabilities", "p.npy", "--resize", "--out", "out.png"]
    assert main([*command, "--config", "settings.yaml"]) == 0


def draw(page, *points: tuple[float, float]) -> None:
    """A stroke on the canvas, in shares of its width and height."""
    box = page.locator("#canvas canvas").first.bounding_box()
    x, y = (
        [box[side] + box[length] * point[axis] for point in points]
        for side, length, axis in (("x", "width", 0), ("y", "height", 1))
    )
    page.mouse.move(x[0], y[0])
    page.mouse.down()
    for at in zip(x[1:], y[1:], strict=True):
        page.mouse.move(*at, steps=6)
    page.mouse.up()
    page.wait_for_timeout(300)


def choose_colour(page, number: int) -> None:
    colours = page.locator("#canvas menu.swatch button")
    if not colours.first.is_visible():
        page.locator("#canvas button[aria-label='Color']").click()
    colours.nth(number).click()


def test_strokes_of_ones_own(visit, tmp_path):
    page = visit()
    photo = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()).resize((1804, 1200)).save(photo)
    page.locator("#tab-strokes-button").click()
    assert not page.locator("#learn").is_visible()  # nor is there anything to draw on
    page.locator("#drawn input[type=file]").set_input_files(photo)
    page.wait_for_selector("#canvas canvas")
    page.wait_for_timeout(2500)
    assert page.locator("#learn").bounding_box()["y"] < 800 - 40  # on the screen of a laptop
    page.locator("#canvas button[aria-label='Brush']").click()
    draw(page, (0.45, 0.4), (0.55, 0.6))
    page.locator("#learn").click()
    page.wait_for_selector("text=Only one colour is drawn")
    page.locator("#name-red input, #name-red textarea").fill("<b>cat</b>")
    page.locator("#name-blue input, #name-blue textarea").fill("garden")
    choose_colour(page, 1)
    draw(page, (0.94, 0.4), (0.94, 0.65))
    page.locator("#learn").click()
    wait_for_result(page)
    assert sorted(classes(page)) == ["<b>cat</b>", "garden"]
    assert "Your photo has 1804 × 1200 pixels" in told(page)
    for name in ("cat", "garden"):  # the other one of them stays
        page.locator("#kept label", has_text=name).click()
    assert page.locator("#kept label:has(input:checked)").all_inner_texts() == ["<b>cat</b>"]
    page.locator("#download").click()
    with page.expect_download() as download:
        page.locator("#files a[download='cutout.png']").click()
    with Image.open(download.value.path()) as cutout:
        assert cutout.size == (1804, 1200)
        alpha = np.asarray(cutout)[..., 3]
    assert (alpha[600, 902], alpha[600, 1696]) == (255, 0)  # the strokes' places
    page.locator("#learn").click()
    page.locator("#files").wait_for(state="hidden")  # they belong to the former result
    page.locator("#another").click()
    page.wait_for_selector("#drawn input[type=file]", state="attached")
    page.locator("#canvas").wait_for(state="hidden")


def test_a_segmented_photo_is_painted_on(visit):
    page = visit()
    page.locator("#samples button, #samples img").first.click()
    wait_for_result(page)
    page.locator("#to-strokes").click()
    page.wait_for_selector("#canvas canvas")


def test_what_is_too_heavy_is_said(visit, tmp_path, server):
    page = visit()
    heavy = tmp_path / "heavy.bmp"
    noise = np.random.default_rng(0).integers(0, 255, (2000, 4000, 3), np.uint8)
    Image.fromarray(noise).save(heavy)  # 24 MB
    page.locator("#photo input[type=file]").set_input_files(heavy)
    page.wait_for_selector("text=exceed the maximum allowed size")


def test_the_sample_with_strokes(visit):
    page = visit()
    page.locator("#tab-strokes-button").click()
    page.locator("#sample-strokes").click()
    wait_for_result(page)
    assert classes(page)[:2] == ["cat", "background"]
    assert page.locator("#name-yellow input, #name-yellow textarea").input_value() == "eyes"
    page.wait_for_timeout(1000)


def choose(page, component: str, path) -> None:
    """Put a file in the place of the one there; again where a click or a file went into what Gradio then replaced."""
    from playwright.sync_api import TimeoutError as Late

    shown = page.locator(f"{component} :text('{path.name}')").first
    emptying = f"{component} button[aria-label='Clear'], {component} button[aria-label='Remove this file']"
    for _ in range(6):
        with suppress(Late):
            if not shown.is_visible():
                if page.locator(emptying).first.is_visible():
                    page.locator(emptying).first.click(timeout=5000)
                page.wait_for_timeout(2500)
                page.locator(f"{component} input[type=file]").first.set_input_files(path, timeout=5000)
            shown.wait_for(timeout=7500)
            return
    told = [page.locator(place).all_inner_texts() for place in (component, ".toast-body")]
    pytest.fail(f"{path.name} is not shown in {component}; what is there, and the page's messages: {told}")


def test_predictions_are_refined(visit, tmp_path):
    page = visit()
    page.locator("#tab-predictions-button").click()
    page.locator("#refine").click()
    page.wait_for_selector("text=Choose a photo first.")
    page.locator("#sample-predictions").click()
    wait_for_result(page)
    assert classes(page) == ["1", "0", "2", "3"] or classes(page)[0] == "cat"
    scores = np.random.default_rng(0).random((3, 300, 451), np.float32)
    np.savez(tmp_path / "p.npz", scores / scores.sum(0))
    choose(page, "#predictions", tmp_path / "p.npz")
    page.locator("#refine").click()
    page.wait_for_selector("#told:has-text('3 classes'), #told:has-text('2 classes'), #told:has-text('1 classes')")


def test_chinese_and_back(visit):
    page = visit(locale="zh-CN")
    page.wait_for_selector("h1:has-text('边缘清晰')")
    page.locator("#samples button, #samples img").first.click()
    wait_for_result(page, "确定边缘改变了")
    names = classes(page)
    assert set(names) <= set(CLASSES.values())
    kept = page.locator("#kept label")
    assert sorted(kept.all_inner_texts()) == sorted(names)
    page.locator("#language label", has_text="English").click()
    page.wait_for_selector("h1:has-text('with sharp edges')")
    assert "Placing the edges changed" in told(page)
    assert "画" not in page.locator("#ways").inner_text()
    assert [CLASSES[name] for name in classes(page)] == names
    assert sorted(kept.all_inner_texts()) == sorted(classes(page))


def test_on_a_phone(visit):
    page = visit(width=390, height=844)
    page.locator("#samples button, #samples img").nth(1).click()
    wait_for_result(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.wait_for_timeout(1500)  # a smooth scroll
    box = page.locator("#comparison").bounding_box()
    assert 0 <= box["y"] < 0.6 * 844
    assert box["width"] > 300
    assert page.locator("#t").bounding_box()["width"] > 150


@pytest.mark.parametrize("kind", ["truncated", "text"])
def test_what_is_no_photo_is_refused_in_a_sentence(visit, tmp_path, kind, server):
    page = visit()
    path = tmp_path / f"{kind}.jpg"
    Image.fromarray(data.chelsea()).save(path)
    path.write_bytes(path.read_bytes()[:9000] if kind == "truncated" else b"hello")
    page.locator("#photo input[type=file]").set_input_files(path)
    page.wait_for_selector("text=not a picture that can be read")
    shown = page.locator("body").inner_text()
    assert "Traceback" not in shown
    assert str(server[2]) not in page.content()
