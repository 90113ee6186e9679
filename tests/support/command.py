"""The command line, in the process of the test."""

from crfrnn.cli import main


def run(*arguments: str) -> int:
    """The exit status of ``crfrnn ...``."""
    try:
        return main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
