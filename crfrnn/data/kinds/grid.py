"""Where the voxels of a volume are."""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

CLOSE = 0.1  # of the smallest spacing: headers round their numbers


@dataclass(frozen=True)
class Grid:
    """Size (z, y, x), and where voxel (x, y, z) is: `affine` (4, 4) to millimetres to the right, to the front and up.

    `header` is what the file's format needs to say so again.
    """

    size: tuple[int, ...]
    affine: np.ndarray
    header: Any = None

    @cached_property
    def spacing(self) -> tuple[float, ...]:
        """(z, y, x), millimetres."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0)[::-1].tolist())

    def check(self, path: Path) -> None:
        """ValueError where positions have no millimetres, or where there is nothing."""
        if 0 in self.size:
            raise ValueError(f"{path}: {' x '.join(map(str, self.size[::-1]))} voxels, there is nothing in it")
        if not np.isfinite(self.affine).all() or not min(self.spacing) > 0:
            raise ValueError(f"{path}: its header gives voxels no size ({self.spacing[::-1]} mm); repair its affine")

    def misfit(self, other: "Grid") -> str:
        """In words, how another grid is not this one; nothing where it is."""
        if other.size != self.size:
            return f"{' x '.join(map(str, other.size[::-1]))} voxels instead of {' x '.join(map(str, self.size[::-1]))}"
        corners = np.array([(*corner, 1.0) for corner in product(*((0, length - 1) for length in self.size[::-1]))])
        apart = float(np.abs(corners @ (self.affine - other.affine).T).max())
        return f"another affine, up to {apart:.3g} mm away" if apart > CLOSE * min(self.spacing) else ""
