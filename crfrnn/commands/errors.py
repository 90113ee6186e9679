"""What a verb raises when it was called wrongly, as opposed to ValueError when a run fails."""


class UsageError(ValueError):
    """Options that contradict each other, are missing, or that nobody could mean. The command line exits 2 on it."""


def check_jobs(jobs: int | None) -> None:
    """UsageError where no core is left to work."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: must be at least 1, got {jobs}; leave it out for all cores")


def check_not_negative(name: str, number: int | None) -> None:
    """UsageError where an option that counts is below 0; None, an option left out, is fine."""
    if number is not None and number < 0:
        raise UsageError(f"{name}: must be at least 0, got {number}")
