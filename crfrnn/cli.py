"""The command line: one dictionary from verb to function. Options and help come from signatures and docstrings."""

import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from crfrnn import __version__
from crfrnn.demo.run import run_demo
from crfrnn.errors import UsageError
from crfrnn.refine_files import refine_files
from crfrnn.segment_files import segment_files

VERBS: dict[str, Callable[..., None]] = {
    "demo": run_demo,
    "refine": refine_files,
    "segment": segment_files,
}

WRONG_USAGE, FAILED, INTERRUPTED = 2, 1, 130


class Parser(ArgumentParser):
    """jsonargparse with --long-options in place of --long_options, --flags without a value, and one-line errors."""

    def add_argument(self, *names: str, **options: Any) -> Any:
        kept = "--print_config"  # jsonargparse looks for this very name
        dashed = tuple(name if name == kept or name[:2] != "--" else name.replace("_", "-") for name in names)
        if options.get("type") is bool:
            del options["type"]
            options["action"] = ActionYesNo(no_prefix="no-")
        return super().add_argument(*dashed, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        del ex
        program = self.prog.replace("[options] ", "")
        plain = re.sub(rf"\b({'|'.join(VERBS)})\.(\w+)", r"\2", " ".join(message.split()))
        print(f"{program}: {plain} ({program} --help)", file=sys.stderr)
        sys.exit(WRONG_USAGE)


def build_parser() -> Parser:
    """A parser with one subcommand for each of `VERBS`."""
    parser = Parser(prog="crfrnn", version=__version__, description=_paragraphs(sys.modules["crfrnn"])[0])
    verbs = parser.add_subcommands(required=True, dest="verb", metavar="VERB", title="verbs", description=None)
    for name, function in VERBS.items():
        paragraphs = _paragraphs(function)
        about = "\n\n".join(paragraph for paragraph in paragraphs if not paragraph.startswith("Args:"))
        verb = Parser(description=about)
        verb.add_argument("--config", action="config", help="a YAML file with any of these options")
        verb.add_function_arguments(function, as_group=False, as_positional=True)
        verbs.add_subcommand(name, verb, help=paragraphs[0])
    return parser


def _paragraphs(documented: Any) -> list[str]:
    return (inspect.getdoc(documented) or "").split("\n\n")


def _normalise(arguments: Sequence[str]) -> list[str]:
    """--config goes first, so that what is said on the command line wins; repeated --kernel options become one list."""
    verb, words = list(arguments[:1]), list(arguments[1:])
    files, words = _take("--config", words)
    kernels, words = _take("--kernel", words)
    config = [f"--config={file}" for file in files]
    return verb + config + words + ([f"--kernel={json.dumps(kernels)}"] if kernels else [])


def _take(option: str, words: list[str]) -> tuple[list[str], list[str]]:
    """The values of an option, given as ``--option value`` or ``--option=value``, and the other words."""
    values, others = [], []
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if name == option and (equals or (value := next(left, ""))):
            values.append(value)
        else:
            others.append(word)
    return values, others


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status is 0, 2 for wrong usage, 1 for a failed run, 130 after Ctrl-C."""
    parsed: Namespace = build_parser().parse_args(_normalise(sys.argv[1:] if arguments is None else arguments))
    verb = parsed.verb
    options = {name: value for name, value in vars(parsed[verb]).items() if name != "config"}
    try:
        VERBS[verb](**options)
    except UsageError as error:
        print(f"crfrnn {verb}: {error} (crfrnn {verb} --help)", file=sys.stderr)
        return WRONG_USAGE
    except (ValueError, OSError, MemoryError) as error:
        print(f"crfrnn {verb}: {str(error) or type(error).__name__}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as error:
        print(f"crfrnn {verb}: {str(error) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    return 0
