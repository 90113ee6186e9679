"""A font that has all the letters of some texts: Pillow's own, or one that the system has."""

from collections.abc import Iterable
from functools import lru_cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SYSTEM = (  # by the names of their files, which Pillow looks for in the system's folders; those with Chinese first
    *("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "SourceHanSansSC-Regular.otf"),
    *("wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf"),
    *("PingFang.ttc", "STHeiti Light.ttc", "Hiragino Sans GB.ttc", "Arial Unicode.ttf"),  # macOS
    *("msyh.ttc", "simsun.ttc", "segoeui.ttf"),  # Windows
    *("NotoSans-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf"),
)
NO_LETTER = "\uffff"  # which no font has: drawn as the box in place of what is missing


def font_for(texts: Iterable[str], size: float) -> Font:
    """The first font with every letter of the texts, or the one that lacks the fewest of them.

    >>> font_for(["cat"], 20).getname()[0]
    'Aileron'
    """
    letters = frozenset("".join(texts)) - {" "}
    own = ImageFont.load_default(size)
    if not (least := len(_missing(own, letters))):
        return own
    best = own
    for name in SYSTEM:
        font = _system_font(name, size)
        if font is not None and (lacking := len(_missing(font, letters))) < least:
            best, least = font, lacking
            if not least:
                break
    return best


@lru_cache(maxsize=64)
def _system_font(name: str, size: float) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


def _missing(font: Font, letters: Iterable[str]) -> set[str]:
    """The letters that are drawn as a box."""
    box = _drawn(font, NO_LETTER)
    return {letter for letter in letters if _drawn(font, letter) == box}


def _drawn(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)  # type: ignore[arg-type]
