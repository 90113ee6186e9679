"""What a verb raises when it was called wrongly, as opposed to ValueError when a run fails."""


class UsageError(ValueError):
    """Options that contradict each other, are missing, or that nobody could mean. The command line exits 2 on it."""
