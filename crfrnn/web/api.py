"""The same for programs: three functions that take files and give files, by `gradio_client` or plain HTTP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import FileData
from gradio.events import api

from crfrnn.parameters import DEFAULT
from crfrnn.web.downloads import fresh_folder
from crfrnn.web.studio import Studio, View
from crfrnn.web.wording import Refusal


def add_api(studio: Studio, folder: Path) -> None:
    """Add the functions to the page that is being built."""

    def give(work: Callable[[], View]) -> list[FileData]:
        try:
            view = work()
            paths = studio.files(view.key, fresh_folder(folder))
        except Refusal as refusal:
            raise gr.Error(refusal.said("en"), print_exception=False) from None
        studio.workspaces.drop(view.key)
        return [FileData(path=str(path)) for path in paths]

    def sent(file: Any) -> str:
        """The path of a file that came with this request; others on the server are none of a visitor's business."""
        path = Path(file["path"] if isinstance(file, dict) else file.path).resolve()
        if not path.is_relative_to(folder):
            raise Refusal("unreadable")
        return str(path)

    def segment(photo: FileData) -> list[FileData]:
        """Segment a photo with the model: label PNG, overlay, probabilities, settings."""
        return give(lambda: studio.segment(sent(photo), "en"))

    def segment_strokes(photo: FileData, strokes: FileData) -> list[FileData]:
        """Segment a photo from strokes, a transparent PNG in the colours of the page's brushes."""
        return give(lambda: studio.learn(sent(photo), sent(strokes), [""] * 6, "en"))

    def refine(
        photo: FileData, predictions: FileData, preset: str = DEFAULT, confidence: float = 0.7, unsure: str = ""
    ) -> list[FileData]:
        """Refine predictions, a label PNG or probabilities in .npz or .npy, with the kernels of a preset."""

        def work() -> View:
            view = studio.refine(sent(photo), sent(predictions), "en", confidence=confidence, unsure=unsure)
            return studio.start_from(view.key, preset, "en")

        return give(work)

    for function in (segment, segment_strokes, refine):
        api(function, api_name=function.__name__, concurrency_id="crf", concurrency_limit=studio.limits.at_once)
