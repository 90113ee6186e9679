"""Files of a model: in a folder, or by name from the Hugging Face hub."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError


def find_file(model: str | Path, name: str, **download: Any) -> Path:
    """The path of one file of a model.

    Args:
        model: a folder, or a name on the hub (owner/name), from which the file is fetched into the hub's cache.
        name: of the file.
        download: further arguments of `huggingface_hub.hf_hub_download`, such as ``revision``.

    Raises ValueError, with one line, where the model or the file is missing or the hub is out of reach.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise ValueError(f"{model}: the folder holds no {name}")
        return folder / name
    try:
        with _quiet("huggingface_hub"):
            return Path(hf_hub_download(str(model), name, **download))
    except HFValidationError:
        raise ValueError(f"{model}: neither a folder nor a name on the hub (owner/name)") from None
    except LocalEntryNotFoundError:
        raise ValueError(
            f"{model}: no such folder, not in the hub's cache, and the hub is out of reach; check the connection"
        ) from None
    except EntryNotFoundError:
        raise ValueError(f"{model}: on the hub, but without {name}") from None
    except OSError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{model}: no such folder, and the hub does not give it ({reason})") from None


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """No warnings of a library whose failure is reported in one line."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
