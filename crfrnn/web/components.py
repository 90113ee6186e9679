"""Gradio's components, without their own reading of what visitors send: `reading` and `studio` do that, in limits."""

import secrets
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import AcceptBlobs, EditorData
from gradio.data_classes import ImageData

from crfrnn.web.limits import MEGA
from crfrnn.web.workspaces import DRAWINGS

TOO_HEAVY = b"too heavy"  # in the place of strokes, so that reading them says that they are no picture


class PhotoInput(gr.Image):
    """An image whose value is the path of the file that was sent, as it came."""

    is_template = True  # the frontend is gr.Image's

    def preprocess(self, payload: ImageData | None) -> str | None:
        return None if payload is None else payload.path


class Choice(gr.Dropdown):
    """One of several. Gradio compares it with choices that it remembers of a session, and may have forgotten."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class Iteration(gr.Slider):
    """A whole number whose most depends on the result; compared as little as a `Choice`."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class Kept(gr.CheckboxGroup):
    """Any of several, which depend on the result; compared as little as a `Choice`."""

    is_template = True

    def preprocess(self, payload: Any) -> Any:
        return payload


class Canvas(gr.ImageEditor):
    """An image editor whose value is the path of its first layer, with the strokes. The photo behind it is the page's.

    Gradio reads the properties of a component from the signature of its constructor, so that it has none of its own.
    """

    is_template = True
    most_bytes = 20 * MEGA  # of one part of a drawing

    def preprocess(self, payload: EditorData | None) -> str | None:
        if payload is None:
            return None
        if payload.id is not None:
            return self._file(DRAWINGS.take(payload.id).get("layer"))
        layers = payload.layers or []
        return layers[0].path if layers else None

    @server
    def accept_blobs(self, data: AcceptBlobs) -> None:
        """A part of a drawing, sent before the event that needs it. Kept for a while, in bounded memory."""
        if not data.files or not {"type", "index", "id"} <= data.data.keys():
            return
        kind, index = data.data["type"], data.data["index"]
        if (kind, str(index)) != ("layer", "0"):
            return  # the photo and what is composed of both are not needed
        blob = bytes(data.files[0][1])
        DRAWINGS.put(str(data.data["id"])[:64], "layer", blob if len(blob) <= self.most_bytes else TOO_HEAVY)

    def _file(self, blob: bytes | None) -> str | None:
        if blob is None:
            return None
        folder = Path(self.GRADIO_CACHE) / secrets.token_hex(16)
        folder.mkdir(parents=True)
        path = folder / "drawing"
        path.write_bytes(blob)
        self.temp_files.add(str(path))
        return str(path)
