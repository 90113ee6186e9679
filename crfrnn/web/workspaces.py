"""What the server remembers of each visitor's picture and drawing, in bounded memory."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from crfrnn.data.labels import LabelStyle
from crfrnn.web.explore import Exploration, Settings, Settling
from crfrnn.web.limits import MEGA
from crfrnn.web.shares import surrendered
from crfrnn.web.wording import Refusal

LEAST = 50_000  # bytes of a workspace beside its arrays
LEAST_DRAWING = 500  # and of a drawing beside its pictures


@dataclass
class Workspace:
    """One visitor's picture, from upload to download."""

    kind: str  # photo, strokes or predictions
    exploration: Exploration
    before: np.ndarray  # (H, W) labels without the CRF
    full_size: tuple[int, int]  # (height, width) of the photo as it came
    style: LabelStyle
    notes: tuple[str, ...] = ()
    settings: Settings | None = None
    learned: bool = False
    settling: Settling | None = None
    seconds: float = 0.0
    source: Path | None = None  # the file of the photo, as long as it is kept
    owner: str = ""  # the visitor
    lock: threading.Lock = field(default_factory=threading.Lock)  # one run at a time

    @property
    def nbytes(self) -> int:
        run = 0 if self.settling is None else self.settling.labels.nbytes + self.settling.marginals.nbytes
        return LEAST + self.exploration.nbytes + self.before.nbytes + run


class Workspaces:
    """The workspaces of all visitors under keys that nobody can guess, in so much memory.

    Where there is too much, whoever has most workspaces gives what was not used for longest: lattices before whole
    workspaces, as they are built again in a moment. `beside` gives the bytes that others keep, which count as well, and
    `asking` the visitor for whom something is being kept.
    """

    def __init__(self, megabytes: int):
        self.most = megabytes * MEGA
        self.beside: Callable[[], int] = int
        self.asking: Callable[[], str] = str
        self._kept: OrderedDict[str, Workspace] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, workspace: Workspace, instead: str = "") -> str:
        """The key of a new workspace, which takes the place of the visitor's last one."""
        key = secrets.token_urlsafe(16)
        workspace.owner = self.asking()
        with self._lock:
            self._kept.pop(instead, None)
            self._kept[key] = workspace
        self.tidy()
        return key

    def find(self, key: str) -> Workspace:
        """Raises Refusal where it was never there, or was put away."""
        with self._lock:
            if key not in self._kept:
                raise Refusal("no_result")
            self._kept.move_to_end(key)
            return self._kept[key]

    def drop(self, key: str) -> None:
        with self._lock:
            self._kept.pop(key, None)

    def tidy(self) -> None:
        """Back to the bound, but for the workspace that was used last."""
        with self._lock:
            excess = self.nbytes - self.most
            if excess <= 0:
                return
            newest = next(reversed(self._kept.values()), None)
            besides = {} if newest is None else {newest.owner: 1.0}
            for give, size in surrendered(self._gifts(), besides):
                if excess <= 0:
                    return
                give()
                excess -= size

    def _gifts(self) -> Iterator[tuple[tuple[Callable[[], object], int], str, int]]:
        """((what to do, the bytes that it frees), the owner, workspaces less), lattices first."""
        earlier = list(self._kept.items())[:-1]
        for _, workspace in earlier:
            lattices = workspace.exploration.lattice_nbytes
            yield (workspace.exploration.forget, lattices), workspace.owner, 0
        for key, workspace in earlier:
            rest = workspace.nbytes - workspace.exploration.lattice_nbytes
            yield (partial(self._kept.pop, key), rest), workspace.owner, 1

    @property
    def nbytes(self) -> int:
        return self.beside() + sum(workspace.nbytes for workspace in list(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)


@dataclass
class Drawing:
    """What was sent of one so far."""

    owner: str  # the visitor
    parts: dict[str, bytes] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return LEAST_DRAWING + sum(map(len, self.parts.values()))


class Drawings:
    """Those of all visitors, between the moment they are sent and the moment they are read, in bounded memory.

    Where there is too much, whoever holds most gives the oldest. `most` is in bytes; `asking` is as in `Workspaces`.
    """

    def __init__(self, most: int):
        self.most = most
        self.asking: Callable[[], str] = str
        self._sent: OrderedDict[str, Drawing] = OrderedDict()  # number of a drawing -> it
        self._lock = threading.Lock()

    def put(self, number: str, part: str, blob: bytes) -> None:
        with self._lock:
            self._sent.setdefault(number, Drawing(self.asking())).parts[part] = blob
            excess = self.nbytes - self.most
            for gone in surrendered((key, one.owner, one.nbytes) for key, one in list(self._sent.items())):
                if excess <= 0:
                    return
                excess -= self._sent.pop(gone).nbytes

    def take(self, number: str) -> dict[str, bytes]:
        """Its parts, which are forgotten here; none of an unknown one."""
        with self._lock:
            drawing = self._sent.pop(number, None)
            return {} if drawing is None else drawing.parts

    @property
    def nbytes(self) -> int:
        return sum(drawing.nbytes for drawing in list(self._sent.values()))


DRAWINGS = Drawings(64 * MEGA)  # Gradio's components know of no page: `Page` says how much memory there is
