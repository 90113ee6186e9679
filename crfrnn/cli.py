"""The command line: one dictionary from verb to function. Options and help come from signatures and docstrings."""

import inspect
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from jsonargparse import ActionYesNo, ArgumentParser, Namespace

from crfrnn import __version__
from crfrnn.commands.check_data import check_data
from crfrnn.commands.demo.run import run_demo
from crfrnn.commands.errors import UsageError
from crfrnn.commands.evaluate.evaluate import evaluate
from crfrnn.commands.fit.files import fit_files
from crfrnn.commands.refine.files import refine_files
from crfrnn.commands.segment.files import segment_files
from crfrnn.commands.train.train import train
from crfrnn.web.serve import serve

VERBS: dict[str, Callable[..., None]] = {  # a verb of two words has two words on the command line too
    "data check": check_data,
    "demo": run_demo,
    "evaluate": evaluate,
    "fit": fit_files,
    "refine": refine_files,
    "segment": segment_files,
    "serve": serve,
    "train": train,
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
        action: Any = super().add_argument(*dashed, **options)
        if not names[0].startswith("-"):
            action.metavar = names[0]  # jsonargparse would show a list as [ITEM,...]
        return action

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        del ex
        program = self.prog.replace("[options] ", "") if self.prog.startswith("crfrnn") else "crfrnn"
        prefixes = "|".join(name.replace(" ", r"\.") for name in VERBS)
        plain = re.sub(rf"\b({prefixes})\.(\w+)", r"\2", " ".join(message.split()))
        print(f"{program}: {plain} ({program} --help)", file=sys.stderr)
        sys.exit(WRONG_USAGE)


def build_parser() -> Parser:
    """A parser with one subcommand for each of `VERBS`."""
    parser = Parser(prog="crfrnn", version=__version__, description=_paragraphs(sys.modules["crfrnn"])[0])
    families: dict[str, Parser] = {}
    verbs = _add_verbs(parser)
    for name, function in VERBS.items():
        family, _, word = name.rpartition(" ")
        if not family:
            verbs.add_subcommand(word, _verb_parser(function), help=_paragraphs(function)[0])
        elif family not in families:
            members = ", ".join(other for other in VERBS if other.startswith(f"{family} "))
            families[family] = Parser(description=f"What there is: {members}.")
            verbs.add_subcommand(family, families[family], help=f"{members}.")
    for family, whole in families.items():  # jsonargparse wants the outer level first
        inner = _add_verbs(whole)
        for name, function in VERBS.items():
            if name.startswith(f"{family} "):
                inner.add_subcommand(name.split()[-1], _verb_parser(function), help=_paragraphs(function)[0])
    return parser


def _add_verbs(parser: Parser) -> Any:
    return parser.add_subcommands(required=True, dest="verb", metavar="VERB", title="verbs", description=None)


def _verb_parser(function: Callable[..., None]) -> Parser:
    about = "\n\n".join(paragraph for paragraph in _paragraphs(function) if not paragraph.startswith("Args:"))
    verb = Parser(description=about)
    verb.add_argument("--config", action="config", help="a YAML file with any of these options")
    verb.add_function_arguments(function, as_group=False, as_positional=True)
    return verb


def _paragraphs(documented: Any) -> list[str]:
    return (inspect.getdoc(documented) or "").split("\n\n")


def _normalise(arguments: Sequence[str]) -> list[str]:
    """--config goes first, so that what is said on the command line wins; several values become one list."""
    length = 2 if " ".join(arguments[:2]) in VERBS else 1
    verb, words = list(arguments[:length]), list(arguments[length:])
    files, words = _take("--config", words)
    kernels, words = _take("--kernel", words)
    config = [f"--config={file}" for file in files]
    words = _as_one_list(VERBS.get(" ".join(verb)), words)
    return verb + config + words + ([f"--kernel={json.dumps(kernels)}"] if kernels else [])


def _as_one_list(function: Callable[..., None] | None, words: list[str]) -> list[str]:
    """The words that belong to no option as one JSON list, where the verb's first parameter takes several."""
    parameters = list(inspect.signature(function).parameters.values()) if function else []
    if not parameters or parameters[0].annotation != list[str] or parameters[0].kind == inspect.Parameter.KEYWORD_ONLY:
        return words
    flags = {f"--{parameter.name.replace('_', '-')}" for parameter in parameters if parameter.annotation is bool}
    alone, others = [], []
    left = iter(words)
    for word in left:
        if not word.startswith("-"):
            alone.append(word)
        elif "=" in word or word in flags or word in ("-h", "--help"):
            others.append(word)
        else:
            others += [word, *([value] if (value := next(left, None)) is not None else [])]
    return ([json.dumps(alone)] if alone else []) + others


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
    parser = build_parser()
    parsed: Namespace = parser.parse_args(_normalise(sys.argv[1:] if arguments is None else arguments))
    verb = parsed.verb
    while (inner := parsed[verb.replace(" ", ".")].get("verb")) is not None:
        verb = f"{verb} {inner}"
    try:
        try:
            chosen = parser.instantiate(parsed)[verb.replace(" ", ".")]
        except ValueError as error:
            raise UsageError(str(error)) from None
        VERBS[verb](**{name: value for name, value in vars(chosen).items() if name != "config"})
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
