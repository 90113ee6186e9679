"""What `crfrnn demo` can be told."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Segment a photograph from a few strokes, and draw the result beside them.

    Needs no input: the photograph comes with scikit-image, the strokes with this package. A small network and its
    CRF-RNN learn from these strokes alone.

    Args:
        out: the folder for the pictures.
    """

    out: str = "crfrnn-demo"
