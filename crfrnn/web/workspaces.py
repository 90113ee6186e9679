"""What the server remembers of each visitor's picture, in bounded memory."""

import secrets
import threading
from collections import OrderedDict
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

    Lattices go before whole workspaces: they are built again in a moment.
    """

    def __init__(self, megabytes: int):
        self.most = megabytes * MEGA
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
        return sum(workspace.nbytes for workspace in list(self._kept.values()))

    def __len__(self) -> int:
        return len(self._kept)
