"""The page: where everything stands. What it does is in `page.py`."""

from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.themes import Soft
from gradio.themes.utils.fonts import Font

from crfrnn.filtering.gaussian_filter import NORMALIZATIONS
from crfrnn.parameters import DEFAULT, PRESETS
from crfrnn.web.components import Canvas, Choice, Iteration, Kept, PhotoInput
from crfrnn.web.explore import Settings
from crfrnn.web.limits import MEGA, Limits
from crfrnn.web.samples import BRUSHES, Samples
from crfrnn.web.studio import LEARNED, RANGES
from crfrnn.web.wording import LANGUAGES, say

FONTS = ("system-ui", "Segoe UI", "Roboto", "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "sans-serif")
THEME = Soft(primary_hue="blue", font=[*map(Font, FONTS)], font_mono=[Font("ui-monospace"), "monospace"])
CSS = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1rem; padding: 0; margin: .2rem 0; }
.legend li { margin: 0; white-space: nowrap; }
.legend i { display: inline-block; width: 1em; height: 1em; margin-right: .4em; border: 1px solid #999;
  border-radius: 3px; vertical-align: -.12em; }
.curve { margin: .2rem 0 0; } .curve svg { width: 100%; max-height: 130px; } .curve figcaption { font-size: .85rem; }
.curve rect { fill: none; } .curve line { stroke: currentColor; opacity: .15; }
.curve text { font-size: 10px; fill: currentColor; } .curve .marked { fill: #d55e00; }
.names label > span::before { content: ""; display: inline-block; width: .9em; height: .9em; margin-right: .35em;
  border-radius: 50%; border: 1px solid #999; vertical-align: -.1em; background: var(--swatch); }
@media (max-width: 640px) {
  #canvas, #canvas .image-container { height: 340px !important; }
  #head { flex-wrap: wrap; } #head > * { flex: 1 1 100%; } h1 { font-size: 1.5rem !important; }
}
footer .divider { display: none; }
#head { align-items: center; } #language { max-width: 220px; }
""" + "".join(f"#name-{name} {{ --swatch: rgb{colour}; }}\n" for name, colour in BRUSHES.items())


@dataclass
class Layout:
    """The components that handlers read and write, and the texts that change with the language."""

    texts: list[tuple[Any, str, str]] = field(default_factory=list)  # component, its property, key of `WORDS`
    parts: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.parts[name]
        except KeyError:
            raise AttributeError(name) from None

    def put(self, name: str, component: Any, key: str = "", what: str = "label") -> Any:
        """Remember a component by name, and where its words come from."""
        self.parts[name] = component
        if key:
            self.texts.append((component, what, key))
        return component

    def settings(self) -> dict[str, Any]:
        """The controls of `Settings`, by name."""
        return {name: self.parts[name] for name in (*RANGES, "normalization")}


def lay_out(samples: Samples, limits: Limits, about_model: str) -> Layout:
    """All components, inside a `gr.Blocks`, in English."""
    page = Layout()
    page.put("key", gr.Textbox("", visible=False))  # in the browser: many visitors cannot push one's out
    with gr.Row(elem_id="head"):
        page.put("title", gr.Markdown(f"# {say('en', 'title')}"), "title", "heading")
        choices = [(name, short) for short, name in LANGUAGES.items()]
        page.put(
            "language",
            gr.Radio(
                choices, value="en", show_label=False, container=False, elem_id="language", scale=0, min_width=220
            ),
        )
    page.put("about", gr.Markdown(say("en", "about")), "about", "value")
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            _inputs(page, samples, limits, about_model)
        with gr.Column(scale=1, min_width=320):
            _result(page)
    return page


def _inputs(page: Layout, samples: Samples, limits: Limits, about_model: str) -> None:
    with page.put("ways", gr.Tabs(elem_id="ways")):
        with page.put("tab_photo", gr.Tab(say("en", "tab_photo"), id="photo", elem_id="tab-photo"), "tab_photo"):
            page.put("about_photo", gr.Markdown(about_model))
            page.put("photo", _photo("photo", 300), "photo")
            files = [[str(path)] for path in samples.photos]
            shown = gr.Examples(files, inputs=[page.photo], label=say("en", "samples"), elem_id="samples")
            page.put("samples", shown.dataset, "samples")
            page.put("to_strokes", _small("to_strokes"), "to_strokes", "value")
        with page.put(
            "tab_strokes", gr.Tab(say("en", "tab_strokes"), id="strokes", elem_id="tab-strokes"), "tab_strokes"
        ):
            _strokes(page, limits)
        with page.put(
            "tab_predictions", gr.Tab(say("en", "tab_predictions"), elem_id="tab-predictions"), "tab_predictions"
        ):
            _predictions(page)


def _small(key: str, **options: Any) -> gr.Button:
    return gr.Button(say("en", key), size="sm", elem_id=key.replace("_", "-"), **options)


def _photo(name: str, height: int) -> PhotoInput:
    sources: Any = ["upload", "clipboard", "webcam"]
    return PhotoInput(
        label=say("en", "photo"), sources=sources, height=height, elem_id=name, buttons=["fullscreen"], image_mode=None
    )


def _strokes(page: Layout, limits: Limits) -> None:
    page.put("about_strokes", gr.Markdown(say("en", "about_strokes")), "about_strokes", "value")
    with page.put("choosing", gr.Column()):
        page.put("drawn", _photo("drawn", 300), "photo")
        page.put("sample_strokes", _small("sample_strokes"), "sample_strokes", "value")
    with page.put("painting", gr.Column(visible=False)):
        _canvas(page, limits)
        with gr.Row():
            page.put("learn", gr.Button(say("en", "learn"), variant="primary", elem_id="learn"), "learn", "value")
            page.put("live", gr.Checkbox(False, label=say("en", "live"), elem_id="live", container=False), "live")
        page.put("names_title", gr.Markdown(say("en", "names")), "names", "value")
        with gr.Row(elem_classes="names"):
            for brush in BRUSHES:
                box = gr.Textbox(
                    label=say("en", brush), max_lines=1, max_length=40, min_width=155, elem_id=f"name-{brush}", scale=1
                )
                page.put(f"name_{brush}", box, brush)
        page.put("another", _small("another"), "another", "value")


def _canvas(page: Layout, limits: Limits) -> None:
    """The photo, reduced, under the strokes: it comes from the page, so that nobody draws while it is being reduced."""
    colours: list[Any] = [f"rgb{colour}" for colour in BRUSHES.values()]
    canvas = Canvas(
        show_label=False,  # Gradio's editor breaks when its label is changed
        sources=[],
        brush=gr.Brush(default_size=8, colors=colours, default_color=colours[0], color_mode="fixed"),
        eraser=gr.Eraser(default_size=16),
        layers=False,
        transforms=(),
        canvas_size=(451, 300),  # the sample's: Gradio draws its strokes once more, as far off as the sizes differ
        format="png",
        type="filepath",
        height=430,
        buttons=["fullscreen"],
        elem_id="canvas",
    )
    canvas.most_bytes = limits.upload_megabytes * MEGA
    page.put("canvas", canvas)


def _predictions(page: Layout) -> None:
    page.put("about_predictions", gr.Markdown(say("en", "about_predictions")), "about_predictions", "value")
    page.put("owned", _photo("owned", 220), "photo")
    types = [".png", ".npz", ".npy"]
    page.put(
        "predictions",
        gr.File(label=say("en", "predictions"), file_types=types, elem_id="predictions", height=130),
        "predictions",
    )
    with gr.Row():
        page.put(
            "confidence",
            gr.Slider(0.3, 0.99, 0.7, step=0.01, label=say("en", "confidence"), elem_id="confidence"),
            "confidence",
        )
        page.put(
            "unsure", gr.Textbox("", label=say("en", "unsure"), max_lines=1, max_length=20, elem_id="unsure"), "unsure"
        )
    with gr.Row():
        page.put(
            "sample_predictions",
            gr.Button(say("en", "sample_predictions"), size="sm", elem_id="sample-predictions"),
            "sample_predictions",
            "value",
        )
        page.put("refine", gr.Button(say("en", "refine"), variant="primary", elem_id="refine"), "refine", "value")


def _result(page: Layout) -> None:
    comparison = gr.ImageSlider(
        label=say("en", "comparison"),
        interactive=False,
        elem_id="comparison",
        buttons=["fullscreen"],
        max_height=480,
        format="webp",
    )
    page.put("comparison", comparison, "comparison")
    page.put("told", gr.Markdown(say("en", "nothing_yet"), elem_id="told"))
    page.put("legend", gr.HTML("", elem_id="legend"))
    page.put("kept", Kept([], label=say("en", "kept"), visible=False, elem_id="kept"), "kept")
    page.put("download", _small("download", visible=False), "download", "value")
    page.put(
        "files",
        gr.File(label=say("en", "files"), file_count="multiple", interactive=False, visible=False, elem_id="files"),
        "files",
    )
    with gr.Row():
        page.put(
            "t",
            Iteration(0, 10, 10, step=1, label=say("en", "iteration"), elem_id="t", scale=4, min_width=200),
            "iteration",
        )
        page.put(
            "play", gr.Button(say("en", "play"), size="sm", elem_id="play", scale=0, min_width=100), "play", "value"
        )
    page.put("curve", gr.HTML("", elem_id="curve"))
    with page.put("accordion", gr.Accordion(say("en", "settings"), open=False, elem_id="settings"), "settings"):
        start = Settings.of(PRESETS[DEFAULT])
        choices = [*PRESETS]
        page.put("preset", Choice(choices, value=DEFAULT, label=say("en", "preset"), elem_id="preset"), "preset")
        for name, (least, most, step) in RANGES.items():
            slider = gr.Slider(
                least, most, getattr(start, name), step=step, label=say("en", name), elem_id=name.replace("_", "-")
            )
            page.put(name, slider, name)
        page.put(
            "normalization",
            gr.Radio([*NORMALIZATIONS], value="after", label=say("en", "normalization"), elem_id="normalization"),
            "normalization",
        )


def preset_choices(learned: bool, language: str) -> list[tuple[str, str]]:
    """(what is shown, what is meant)"""
    return [(say(language, "learned"), LEARNED)] * learned + [(name, name) for name in PRESETS]
