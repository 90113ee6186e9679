"""Pictures of 16 bits, of which cameras, scanners and microscopes often use fewer: what stands for white in them."""

import warnings

DEPTHS = (8, 10, 12, 14, 16)  # bits in use that there are


def bits_in_use(highest: int) -> int:
    """The fewest of `DEPTHS` that hold the highest value of a picture.

    >>> [bits_in_use(highest) for highest in (255, 800, 4095, 40_000)]
    [8, 10, 12, 16]
    """
    return next(bits for bits in DEPTHS if highest < 1 << bits)


def white_of(highest: int) -> int:
    """The value that becomes 255: the last one of the bits in use. Fewer than 16 of them are a guess, which is said.

    >>> white_of(40_000)
    65535
    """
    bits = bits_in_use(highest)
    white = (1 << bits) - 1
    if bits < DEPTHS[-1]:
        warnings.warn(
            f"image: no value is above {white}, so its 16 bits are taken for {bits}, 0..{white} as 0..255;"
            " where that is wrong, convert the image to 8 bits yourself",
            stacklevel=2,
        )
    return white
