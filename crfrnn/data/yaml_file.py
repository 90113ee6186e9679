"""Settings in YAML files."""

import importlib
from pathlib import Path
from typing import Any


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; a ValueError of one line where it does not."""
    yaml = pyyaml()
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a YAML file of names and values")
    return content


def pyyaml() -> Any:
    """PyYAML, which comes with jsonargparse and so with the command line; a layer does without both."""
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise ValueError("config: YAML files need PyYAML: pip install pyyaml") from None
