"""What a GPU must at least do for each figure of `bm_gpu.py`: bytes and operations, and the time they take.

The floor of a call is the largest of its times, one for each unit of the card at the rate that was measured on it:
no version runs much faster. Bytes count each large array once for each pass that cannot do without it, in device
memory; where a table fits into the cache, a pass can beat its floor.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Ceilings:
    """Rates of one card, a second."""

    bandwidth: float  # bytes of a large copy, read and written
    fmas: float  # float32 multiply-adds, and other float32 operations, of the ordinary units
    exps: float  # exponentials
    products: float  # multiply-adds of tf32 on the matrix units


H200 = Ceilings(bandwidth=4.8e12, fmas=33.5e12, exps=4.2e12, products=247e12)  # datasheet; for --dry-run


@dataclass(frozen=True)
class Work:
    """What must be moved and computed; the names are those of `Ceilings`."""

    bandwidth: float = 0
    fmas: float = 0
    exps: float = 0
    products: float = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    def __mul__(self, times: float) -> "Work":
        return Work(*(getattr(self, f.name) * times for f in fields(Work)))

    def floor(self, ceilings: Ceilings) -> tuple[float, str]:
        """(milliseconds, the unit that takes them).

        >>> Work(bandwidth=4.8e9, fmas=1e9).floor(H200)
        (1.0, 'bandwidth')
        """
        times = {f.name: 1e3 * getattr(self, f.name) / getattr(ceilings, f.name) for f in fields(Work)}
        slowest = max(times, key=lambda name: times[name])
        return times[slowest], slowest


def build_lattice(points: int, dimensions: int = 5) -> Work:
    """Embed and number: features in, a row and a weight for each corner out, and one sort's worth of 8-byte keys."""
    corners = points * (dimensions + 1)
    return Work(bandwidth=4 * dimensions * points + 8 * corners + 4 * 8 * corners, fmas=100 * points)


def iteration(points: int, labels: int, vertices: int, dimensions: int = 5, taps: int = 19) -> Work:
    """One iteration with a lattice and a two-dimensional spatial kernel, fused as far as can be.

    U is read; Q is written for the spatial kernel and read by it, whose sums are written and read; slice and splat
    share one reading of rows and weights; the table of vertices is written once by the splat, read once by the slice,
    and read and written by each of the d + 1 blurs.
    """
    row, table, corners = 4 * labels * points, 4 * labels * vertices, dimensions + 1
    moved = row + 4 * row + 8 * corners * points + 2 * table + 2 * corners * table
    sums = labels * points * (2 * corners + 2 * taps + 6) + 2 * corners * labels * vertices
    return Work(bandwidth=moved, fmas=sums, exps=labels * points)


def inference(points: int, labels: int, vertices: int, iterations: int, batch: int = 1) -> Work:
    """The lattice, T iterations, U in and the last Qu out; `vertices` of one image."""
    once = build_lattice(points) + Work(bandwidth=2 * 4 * labels * points)
    return (once + iteration(points, labels, vertices) * iterations) * batch


def training(points: int, labels: int, vertices: int, iterations: int) -> Work:
    """Forward and backward: each iteration once more, transposed, and its Q kept and read."""
    kept = Work(bandwidth=2 * 4 * labels * points)
    return inference(points, labels, vertices, iterations) + (iteration(points, labels, vertices) + kept) * iterations


def exact(points: int, channels: int, share: float, dimensions: int = 5) -> Work:
    """One application of the exact filter, when `share` of all pairs of tiles is near enough to be summed.

    A pair costs d differences, d multiply-adds, one scaling, two operations that split the kernel, one exponential,
    and three products (tf32, for float32's precision) with the channels filled up to a power of two.
    """
    pairs = share * float(points) ** 2
    block = max(16, 1 << (channels - 1).bit_length())
    moved = 3 * 4 * block * points
    return Work(bandwidth=moved, fmas=(2 * dimensions + 3) * pairs, exps=pairs, products=3 * block * pairs)
