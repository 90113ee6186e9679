"""What `crfrnn serve` can be told."""

from dataclasses import dataclass

from crfrnn.commands.errors import UsageError
from crfrnn.web.limits import Limits


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Start a page on which anybody can segment photos, paint strokes and refine predictions.

    Everything happens on this machine; no request leaves it. Ctrl-C stops the server and deletes what visitors sent.

    Args:
        host: the address to listen on; 0.0.0.0 for other machines, too.
        port: the port to listen on; 0 takes any free one.
        share: also make the page reachable through a public address of Gradio's, for some days.
        model: voc or camvid, which come with the package, a folder that training or save_pretrained left, or a name on
            the hub; voc where it is left out.
        pixels: the size at which the CRF works; larger photos are scaled to it, and the result back.
        photo_megapixels: photos with more are refused.
        upload_megabytes: files with more are refused.
        at_once: requests that are computed at the same time.
        waiting: requests that wait for them; further ones are told to come back.
        memory_megabytes: for the pictures of all visitors.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False
    model: str | None = None
    pixels: int = Limits.pixels
    photo_megapixels: int = Limits.photo_megapixels
    upload_megabytes: int = Limits.upload_megabytes
    at_once: int = Limits.at_once
    waiting: int = Limits.waiting
    memory_megabytes: int = Limits.memory_megabytes

    def __post_init__(self):
        if not 0 <= self.port < 65536:
            raise UsageError(f"port: must lie in 0..65535, got {self.port}")
        _ = self.limits  # which says what is wrong with them

    @property
    def limits(self) -> Limits:
        """Those of them that bound what visitors may ask; a ValueError where one makes no sense."""
        return Limits(
            pixels=self.pixels,
            photo_megapixels=self.photo_megapixels,
            upload_megabytes=self.upload_megabytes,
            at_once=self.at_once,
            waiting=self.waiting,
            memory_megabytes=self.memory_megabytes,
        )
