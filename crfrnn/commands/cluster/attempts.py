"""Which work was begun and not ended, kept by a process that needs nothing else of the package, and so is small."""

from collections import Counter


class Attempts:
    """An actor that knows what the workers have begun and not ended: what they died of may be among it.

    >>> attempts = Attempts()
    >>> attempts.begin("batch 3"), attempts.begin("batch 3"), attempts.end("batch 3"), attempts.begin("batch 3")
    (1, 2, None, 1)
    """

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, what: str) -> int:
        """How often it has been begun since it was last ended, now included."""
        self._begun[what] += 1
        return self._begun[what]

    def end(self, what: str) -> None:
        """It has been done, or failed as it should."""
        self._begun.pop(what, None)
