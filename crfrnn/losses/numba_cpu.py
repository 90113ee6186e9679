"""Pictures at half their size, and gradients at twice (Numba): arrays in, arrays filled, no policy."""

from crfrnn.runtime.compiled import kernel_on_views


@kernel_on_views
def halve(planes, out, start, stop):
    """planes (P, 2 h, 2 w) -> out (P, h, w), means of two by two: bilinear interpolation at exactly half the size."""
    _, height, width = out.shape
    quarter = planes.dtype.type(0.25)
    for plane in range(start, stop):
        for y in range(height):
            above, below, row = planes[plane, 2 * y], planes[plane, 2 * y + 1], out[plane, y]
            for x in range(width):
                row[x] = ((above[2 * x] + above[2 * x + 1]) + (below[2 * x] + below[2 * x + 1])) * quarter


@kernel_on_views
def share_out(planes, out, start, stop):
    """The transpose of `halve`: planes (P, h, w) -> out (P, 2 h, 2 w), a quarter each."""
    _, height, width = planes.shape
    quarter = planes.dtype.type(0.25)
    for plane in range(start, stop):
        for y in range(height):
            row, above, below = planes[plane, y], out[plane, 2 * y], out[plane, 2 * y + 1]
            for x in range(width):
                part = row[x] * quarter
                above[2 * x], above[2 * x + 1] = part, part
            for x in range(2 * width):
                below[x] = above[x]
