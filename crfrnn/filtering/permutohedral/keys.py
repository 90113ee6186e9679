"""The keys of a lattice's vertices: one word of 64 bits or two, whatever the number of features.

A key is linear in the coordinates, sum of coordinate times stride modulo 2^64 in each word, so that a neighbour's key
is one addition. Where they hold it, the words are a number of mixed radix, and no two vertices within reach of the
features share one. Coordinates count in cells of d + 1 there, as all of a vertex leave the same remainder: hardly a
number is left out, and few enough of them are an index. Where they do not, from about ten features on, the strides have
no pattern, and that two vertices share both words is left to chance: less than one in 1e17 for a million points; see
this folder's README.
"""

import numpy as np

KEY_BITS = 62  # of a number of mixed radix, in each word
LARGEST = 2.0**50  # coordinates are whole numbers in float64, with bits left for what is between them
WORD = (1 << 64) - 1


def check_reach(largest: float, dimensions: int) -> None:
    """ValueError where coordinates are too large, for scaled features of at most `largest`."""
    if largest * (dimensions + 1) > LARGEST:
        raise ValueError(
            f"features: as far as {largest / (dimensions + 1):.3g} lattice cells from 0, more than can be numbered; use"
            " larger bandwidths or method='exact', and subtract what all points have in common"
        )


def scattered_strides(count: int) -> np.ndarray:
    """(2, count) int64: odd numbers without a pattern, always the same (splitmix64, Steele, Lea and Flood 2014).

    >>> strides = scattered_strides(20)
    >>> len(np.unique(strides)), bool((strides % 2 == 1).all())
    (40, True)
    """
    words = np.array([_mixed(number) | 1 for number in range(1, 2 * count + 1)], np.uint64)
    return words.reshape(2, count).view(np.int64)


def _mixed(number: int) -> int:
    mixed = number * 0x9E3779B97F4A7C15 & WORD
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & WORD
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & WORD
    return mixed ^ mixed >> 31
