"""Settings in YAML files, read as the command line reads those of ``--config``."""

import functools
import importlib
import re
from pathlib import Path
from typing import Any

FLOAT, TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
NUMBER = re.compile(  # jsonargparse's, for ``--config``: 5e-1 is one, as in YAML 1.2, where PyYAML wants 5.0e-1
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |\.[0-9_]+(?:[eE][-+][0-9]+)?
    |[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; a ValueError of one line where it does not."""
    yaml = pyyaml()
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _loader())
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a readable YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a YAML file of names and values")
    return content


def as_number(value: Any) -> Any:
    """What a text in quotes says, where a number is wanted, or each text of a list; anything else as it is."""
    if isinstance(value, list):
        return [as_number(item) for item in value]
    if not isinstance(value, str):
        return value
    yaml = pyyaml()
    try:
        return yaml.load(value, _loader())
    except yaml.YAMLError:
        return value


@functools.cache
def _loader() -> Any:
    """PyYAML's safe loader with the numbers of the command line, and no dates."""

    class Loader(pyyaml().SafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (FLOAT, TIMESTAMP)]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(FLOAT, NUMBER, list("-+0123456789."))
    return Loader


def pyyaml() -> Any:
    """PyYAML, which comes with jsonargparse and so with the command line; a layer does without both."""
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise ValueError("config: YAML files need PyYAML: pip install pyyaml") from None
