"""What `crfrnn data check` can be told."""

from dataclasses import KW_ONLY, dataclass


@dataclass(frozen=True)
class CheckDataOptions:
    """Read a configuration's data and print what is there; every problem is a line of its own.

    Args:
        configuration: a YAML file with a section ``data:``, such as those in configs/.
        root: the data set's folder, in place of the file's.
        splits: which ones, with commas; those that the configuration trains, validates and tests on where it is left
            out, though without the last where there is none.
    """

    configuration: str
    _: KW_ONLY
    root: str | None = None
    splits: str | None = None
