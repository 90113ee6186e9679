"""The page of `crfrnn serve`: every control tied to what it does. It holds no mathematics; see `studio.py`."""

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from crfrnn.data.labels import GROUND
from crfrnn.parameters import DEFAULT
from crfrnn.web.api import add_api
from crfrnn.web.downloads import fresh_folder
from crfrnn.web.expiry import CHECKS
from crfrnn.web.layout import lay_out, preset_choices
from crfrnn.web.samples import BRUSHES, write_samples
from crfrnn.web.studio import LEARNED, RANGES, Studio, View
from crfrnn.web.turns import asking, take_turns
from crfrnn.web.wording import Refusal, class_name, language_of, say
from crfrnn.web.workspaces import DRAWINGS

PROGRESS = gr.Progress()  # Gradio hands each handler one of its own in its place
TO_THE_RESULT = """() => {
  const place = document.querySelector("#comparison"), top = place.getBoundingClientRect().top
  if (top > 0.6 * innerHeight || top < 0) place.scrollIntoView({behavior: "smooth", block: "start"})
}"""
FRAME = 0.35  # seconds for which a played iteration is shown
SESSIONS = 500  # of which Gradio remembers what they are to be told; one that waits for something is not forgotten
PLAYERS = 2  # at the same time, for each request that is computed; further ones wait


def build_page(studio: Studio, folder: Path) -> gr.Blocks:
    """The whole page. `folder` is the server's own, for samples and for what is downloaded."""
    return Page(studio, folder).blocks


class Page:
    """Handlers, and the components that they fill."""

    def __init__(self, studio: Studio, folder: Path):
        self.studio, self.folder = studio, folder
        self.samples = write_samples(folder, studio.classes())
        DRAWINGS.most = studio.workspaces.most // 4
        studio.workspaces.beside = lambda: DRAWINGS.nbytes
        studio.workspaces.asking = DRAWINGS.asking = asking
        seconds: Any = 60 * studio.limits.minutes
        self.blocks = gr.Blocks(title="CRF-RNN", analytics_enabled=False, delete_cache=(seconds / CHECKS, seconds))
        with self.blocks:
            self.layout = lay_out(self.samples, studio.limits, self._about_model("en"))
            add_api(studio, folder)  # first: their names are not taken then
            self._connect()
        # api_open would let anybody pass by the queue
        self.blocks.queue(default_concurrency_limit=studio.limits.at_once, api_open=False)
        take_turns(self.blocks._queue, self.blocks.fns.values(), studio.limits.waiting, SESSIONS)

    def _connect(self) -> None:
        at = self.layout
        shown = self._shown()
        quiet: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "crf"}
        quiet["concurrency_limit"] = self.studio.limits.at_once
        live = quiet | {"trigger_mode": "always_last", "show_progress": "hidden"}
        hidden = quiet | {"show_progress": "hidden"}
        fetching = quiet | {"show_progress": "full", "show_progress_on": [at.download]}
        slow = quiet | {"show_progress": "full", "show_progress_on": [at.comparison]}

        telling: dict[str, Any] = {"fn": self.translate, "inputs": [at.language, at.key, at.t]}
        telling |= {"outputs": self._texts(), "api_visibility": "private"}
        self.blocks.load(self.greet, None, [at.language], api_visibility="private").then(**telling)
        at.language.input(**telling)

        def computed(event: Any, work: Callable[..., Any], inputs: list[Any]) -> None:
            """Results are shown, and on a phone the screen moves to them."""
            event(work, inputs, shown, **slow).success(None, js=TO_THE_RESULT, api_visibility="private")

        computed(at.photo.change, self.segment, [at.photo, at.language, at.key])
        names = [self.layout.parts[f"name_{brush}"] for brush in BRUSHES]
        drawing = [at.drawn, at.canvas, at.language, at.key, *names]
        opened = [at.canvas, at.choosing, at.painting]
        at.drawn.input(self.open_photo, [at.drawn, at.language], opened, **hidden)
        at.to_strokes.click(self.carry, [at.photo, at.language], [at.ways, at.drawn, *opened], **hidden)
        at.another.click(self.close_photo, None, [at.drawn, *opened], **hidden)
        computed(at.learn.click, self.learn, drawing)
        at.canvas.change(self.look, [at.live, *drawing], shown, **live)
        shown_cat = at.sample_strokes.click(self.paint_cat, None, [at.drawn, *opened, *names], **hidden)
        computed(shown_cat.then, self.learn_cat, [at.language, at.key])
        refining = [at.owned, at.predictions, at.language, at.key, at.confidence, at.unsure]
        computed(at.refine.click, self.refine, refining)
        rough = at.sample_predictions.click(self.rough_cat, None, [at.owned, at.predictions], **quiet)
        computed(rough.then, self.refine, refining)

        at.t.input(self.scrub, [at.key, at.t, at.language], [at.comparison, at.legend, at.curve], **live)
        playing = live | {"concurrency_id": "play", "concurrency_limit": PLAYERS * self.studio.limits.at_once}
        at.play.click(self.play, [at.key, at.language], [at.comparison, at.legend, at.curve, at.t], **playing)
        controls = [*at.settings().values()]
        for control in controls:
            control.input(self.change, [at.key, at.preset, at.language, *controls], shown, **live)
        at.preset.select(self.start_from, [at.key, at.preset, at.language], shown, **live)
        at.download.click(self.download, [at.key, at.language, at.kept], [at.files], **fetching)

    def greet(self, request: gr.Request) -> str:
        """The language that the browser asks for."""
        return language_of(request.headers.get("accept-language", ""))

    def translate(self, language: str, key: str, t: int) -> list[Any]:
        """Every text of the page in the language, and what is told of the present result."""
        updates = []
        for _, what, word in self.layout.texts:
            text = say(language, word)
            change: dict[str, Any] = {"value": f"# {text}"} if what == "heading" else {what: text}
            updates.append(gr.update(**change))
        updates.append(self._about_model(language))
        try:
            view = self.studio.view(key, t, language)
        except Refusal:
            return [*updates, say(language, "nothing_yet"), *(gr.skip() for _ in range(4))]
        presets = gr.update(choices=preset_choices(view.learned, language))
        return [*updates, view.summary, view.curve, presets, view.legend, gr.update(choices=view.classes)]

    def segment(self, path: str | None, language: str, key: str, progress: Any = PROGRESS) -> list[Any]:
        if path is None:  # the photo was taken away
            return [gr.skip() for _ in self._shown()]
        progress(0.1, desc=say(language, "segmenting"))
        return self._show(lambda: self.studio.segment(path, language, key), language, LEARNED)

    def open_photo(self, path: str | None, language: str) -> list[Any]:
        """The canvas, the choice of a photo and the painting: a photo of any size as the CRF will see it."""
        if path is None:
            return [gr.skip()] * 3
        photo = _said(language, lambda: self.studio.read(path))
        return [self._on_canvas(photo.pixels, []), *_painting(True)]

    def carry(self, path: str | None, language: str) -> list[Any]:
        """A photo that was segmented, to be painted on."""
        return [gr.Tabs(selected="strokes"), path or gr.skip(), *self.open_photo(path, language)]

    def close_photo(self) -> list[Any]:
        """The canvas keeps its photo until the next one comes: Gradio's editor breaks when it is emptied as it goes."""
        return [None, gr.skip(), *_painting(False)]

    def learn(
        self,
        photo: str | None,
        layer: str | None,
        language: str,
        key: str,
        *names: str,
        progress: Any = PROGRESS,
    ) -> list[Any]:
        return self._learn(photo, layer, language, key, names, progress)

    def look(
        self,
        wanted: bool,
        photo: str | None,
        layer: str | None,
        language: str,
        key: str,
        *names: str,
    ) -> list[Any]:
        """While somebody paints; nothing is said where strokes are missing."""
        if wanted:
            try:
                return self._learn(photo, layer, language, key, names, progress=lambda *_, **__: None)
            except gr.Error:
                pass
        return [gr.skip() for _ in self._shown()]

    def _learn(
        self, photo: str | None, layer: str | None, language: str, key: str, names: tuple[str, ...], progress: Any
    ) -> list[Any]:
        def report(done: int, total: int) -> None:
            progress((done, total), desc=say(language, "learning"))

        def work() -> View:
            return self.studio.learn(photo, layer, names, language, key, progress=report)

        return self._show(work, language, LEARNED)

    def paint_cat(self) -> list[Any]:
        with Image.open(self.samples.cat) as photo:
            canvas = self._on_canvas(np.asarray(photo), [self.samples.cat_strokes])
        return [
            str(self.samples.cat),
            canvas,
            *_painting(True),
            *(self.samples.cat_names.get(brush, "") for brush in BRUSHES),
        ]

    def learn_cat(self, language: str, key: str, progress: Any = PROGRESS) -> list[Any]:
        layer = self.folder / "cat-strokes.png"
        if not layer.exists():
            Image.fromarray(self.samples.cat_strokes).save(layer)
        names = tuple(self.samples.cat_names.get(brush, "") for brush in BRUSHES)
        return self._learn(str(self.samples.cat), str(layer), language, key, names, progress)

    def refine(
        self,
        photo: str | None,
        predictions: str | None,
        language: str,
        key: str,
        confidence: float,
        unsure: str,
        progress: Any = PROGRESS,
    ) -> list[Any]:
        progress(0.1, desc=say(language, "refining"))

        def work() -> View:
            return self.studio.refine(photo, predictions, language, key, confidence=confidence, unsure=unsure)

        return self._show(work, language, "crfrnn")

    def rough_cat(self) -> list[str]:
        return [str(self.samples.cat), str(self.samples.rough)]

    def change(self, key: str, preset: str, language: str, *values: float | str) -> list[Any]:
        wanted = dict(zip(self.layout.settings(), values, strict=True))
        return self._show(lambda: self.studio.change(key, wanted, preset, language), language, preset, moved=True)

    def start_from(self, key: str, preset: str, language: str) -> list[Any]:
        return self._show(lambda: self.studio.start_from(key, preset, language), language, preset)

    def scrub(self, key: str, t: int, language: str) -> list[Any]:
        view = _said(language, lambda: self.studio.view(key, t, language))
        return [(view.before, view.after), view.legend, view.curve]

    async def play(self, key: str, language: str) -> AsyncIterator[list[Any]]:
        """From the unary to the last iteration, one after the other; all are there, so that it takes no place of those
        that compute, and no thread."""
        t, last = 0, 1
        while t <= last:
            view = await asyncio.to_thread(_said, language, lambda t=t: self.studio.view(key, t, language))
            last = view.settings.iterations
            yield [(view.before, view.after), view.legend, view.curve, t]
            t += 1
            await asyncio.sleep(FRAME)

    def download(self, key: str, language: str, kept: list[int], progress: Any = PROGRESS) -> Any:
        progress(0.1, desc=say(language, "writing"))
        into = fresh_folder(self.folder)
        paths = _said(language, lambda: self.studio.files(key, into, kept))
        return gr.update(value=[str(path) for path in sorted(paths)], visible=True)  # the cut-out first

    def _show(self, work: Callable[[], View], language: str, preset: str, moved: bool = False) -> list[Any]:
        """The view in the components of `_shown`; controls that were `moved` by hand stay where they are."""
        view = _said(language, work)
        t = gr.update(value=view.t, maximum=max(1, view.settings.iterations))
        first = [view.key, (view.before, view.after), view.summary, view.legend, view.curve, t]
        first += [gr.update(value=None, visible=False), gr.update(visible=True)]  # downloads of what was shown before
        first += [gr.update(choices=view.classes, value=view.chosen, visible=True)]
        if moved:
            return [*first, *(gr.skip() for _ in range(len(RANGES) + 2))]
        chosen = gr.update(
            choices=preset_choices(view.learned, language),
            value=preset if view.learned or preset != LEARNED else DEFAULT,
        )
        controls = [round(getattr(view.settings, name), 3) for name in RANGES]
        return [*first, chosen, *controls, view.settings.normalization]

    def _shown(self) -> list[Any]:
        at = self.layout
        first = [at.key, at.comparison, at.told, at.legend, at.curve, at.t, at.files, at.download, at.kept]
        return [*first, at.preset, *at.settings().values()]

    def _texts(self) -> list[Any]:
        at = self.layout
        result = [at.told, at.curve, at.preset, at.legend, at.kept]
        return [*(component for component, _, _ in at.texts), at.about_photo, *result]

    def _about_model(self, language: str) -> str:
        known = [class_name(language, name) for name in self.studio.classes() if name.casefold() not in GROUND]
        classes = ("、" if language == "zh" else ", ").join(known[:30])
        return say(language, "about_photo", model=Path(self.studio.name).name, classes=classes)

    def _on_canvas(self, photo: np.ndarray, layers: list[np.ndarray]) -> dict[str, Any]:
        composite = Image.fromarray(photo).convert("RGBA")
        for layer in layers:
            composite.alpha_composite(Image.fromarray(layer))
        return {"background": photo, "layers": layers, "composite": np.asarray(composite)}


def _painting(open_: bool) -> list[Any]:
    """The choice of a photo, or the painting on it."""
    return [gr.update(visible=not open_), gr.update(visible=open_)]


def _said(language: str, work: Callable[[], Any]) -> Any:
    """What `work` returns; a refusal, or whatever goes wrong, becomes one sentence and no more."""
    try:
        return work()
    except Refusal as refusal:
        raise gr.Error(refusal.said(language), print_exception=False, title="") from None
    except Exception:  # it is written down here, and only here
        traceback.print_exc(file=sys.stderr)
        raise gr.Error(say(language, "failed"), print_exception=False, title="") from None
