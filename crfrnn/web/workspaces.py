"""What the server remembers of each visitor's picture and drawing, in bounded memory."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from crfrnn.data.labels import LabelStyle
from crfrnn.web.explore import Exploration, Settings, Settling
from crfrnn.web.limits import MEGA
from crfrnn.web.wording import Refusal


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
    lock: threading.Lock = field(default_factory=threading.Lock)  # one run at a time

    @property
    def nbytes(self) -> int:
        run = 0 if self.settling is None else self.settling.labels.nbytes + self.settling.marginals.nbytes
        return self.exploration.nbytes + self.before.nbytes + run


class Workspaces:
    """The workspaces of all visitors under keys that nobody can guess, the longest unused ones put away first.

    Lattices go before whole workspaces: they are built again in a moment. `beside` gives the bytes that others keep,
    which count as well.
    """

    def __init__(self, megabytes: int):
        self.most = megabytes * MEGA
        self.beside: Callable[[], int] = int
        self._kept: OrderedDict[str, Workspace] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, workspace: Workspace, instead: str = "") -> str:
        """The key of a new workspace, which takes the place of the visitor's last one."""
        key = secrets.token_urlsafe(16)
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
            earlier = list(self._kept)[:-1]
            for put_away in (self._forget_lattices, self._kept.pop):
                for key in earlier:
                    if self.nbytes <= self.most:
                        return
                    put_away(key)

    def _forget_lattices(self, key: str) -> None:
        self._kept[key].exploration.forget()

    @property
    def nbytes(self) -> int:
        return self.beside() + sum(workspace.nbytes for workspace in list(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)


class Drawings:
    """Those of all visitors, between the moment they are sent and the moment they are read, in bounded memory.

    The oldest go first. `most` is in bytes.
    """

    def __init__(self, most: int):
        self.most = most
        self._sent: OrderedDict[str, dict[str, bytes]] = OrderedDict()  # number of a drawing -> its parts
        self._lock = threading.Lock()

    def put(self, number: str, part: str, blob: bytes) -> None:
        with self._lock:
            self._sent.setdefault(number, {})[part] = blob
            while self._sent and self.nbytes > self.most:
                self._sent.popitem(last=False)

    def take(self, number: str) -> dict[str, bytes]:
        """Its parts, which are forgotten here; none of an unknown one."""
        with self._lock:
            return self._sent.pop(number, {})

    @property
    def nbytes(self) -> int:
        return sum(len(number) + sum(map(len, parts.values())) for number, parts in list(self._sent.items()))


DRAWINGS = Drawings(64 * MEGA)  # Gradio's components know of no page: `Page` says how much memory there is
