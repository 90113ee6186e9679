"""The command line: one dictionary from verb to its options and the function that takes them.

Options are dataclasses: a field is an option, the docstring is the help. The functions need torch, so their modules are
imported when one is called: whoever asks for help or mistypes an option does not wait for it.
"""

import dataclasses
import inspect
import json
import re
import sys
import textwrap
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jsonargparse import ActionYesNo, ArgumentParser, Namespace, set_parsing_settings

from crfrnn import __version__
from crfrnn.commands.check_data.options import CheckDataOptions
from crfrnn.commands.demo.options import DemoOptions
from crfrnn.commands.errors import UsageError
from crfrnn.commands.evaluate.options import EvaluateOptions
from crfrnn.commands.examples import EXAMPLES
from crfrnn.commands.fit.options import FitOptions
from crfrnn.commands.refine.options import RefineOptions
from crfrnn.commands.segment.options import SegmentOptions
from crfrnn.commands.status.options import StatusOptions
from crfrnn.commands.train.options import TrainOptions
from crfrnn.data.files import printable
from crfrnn.data.yaml_file import checked_text, pyyaml
from crfrnn.runtime.loading import load
from crfrnn.web.options import ServeOptions


class Verb(NamedTuple):
    """The options of a verb, and the module and the name of the function that takes them."""

    options: type
    module: str
    function: str


VERBS = {  # a verb of two words has two words on the command line too
    "data check": Verb(CheckDataOptions, "crfrnn.commands.check_data.check", "check_data"),
    "demo": Verb(DemoOptions, "crfrnn.commands.demo.run", "run_demo"),
    "evaluate": Verb(EvaluateOptions, "crfrnn.commands.evaluate.evaluate", "evaluate"),
    "fit": Verb(FitOptions, "crfrnn.commands.fit.files", "fit_files"),
    "refine": Verb(RefineOptions, "crfrnn.commands.cluster.refining", "refine_anywhere"),
    "segment": Verb(SegmentOptions, "crfrnn.commands.cluster.segmenting", "segment_anywhere"),
    "serve": Verb(ServeOptions, "crfrnn.web.serve", "serve"),
    "status": Verb(StatusOptions, "crfrnn.commands.status.status", "status"),
    "train": Verb(TrainOptions, "crfrnn.commands.train.train", "train"),
}

WRONG_USAGE, FAILED, INTERRUPTED = 2, 1, 130
CONFIG = "--config="
HELP, ALL = ("-h", "--help"), "all"
KEPT = ("--print_config", "--print_completion")  # jsonargparse looks for these very names
LONGEST = 1000  # characters of a message
WORDS = (list[str], list[str] | None)  # types of options that are said again for each further word
TYPES = {"int": "a whole number", "float": "a number", "list": "a list", "dict": "names with values"}


class Parser(ArgumentParser):
    """jsonargparse with --long-options in place of --long_options, --flags without a value, and one-line errors."""

    def add_argument(self, *names: str, **options: Any) -> Any:
        dashed = tuple(name if name in KEPT or name[:2] != "--" else name.replace("_", "-") for name in names)
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
        plain = _of_a_type(" ".join(message.split()))
        if program == "crfrnn" and (verb := re.search(rf"\b({prefixes})\.\w", plain)):
            program = f"crfrnn {verb[1].replace('.', ' ')}"
        plain = re.sub(rf"\b({prefixes})\.(\w+)", r"\2", plain)
        plain = plain if len(plain) <= LONGEST else f"{plain[:LONGEST]} ..."  # a value may be as long as its file
        print(printable(f"{program}: {plain} ({program} --help)"), file=sys.stderr)
        sys.exit(WRONG_USAGE)


class VerbParser(Parser):
    """The parser of one verb, whose options are the fields of a dataclass."""

    options: type
    verb: str

    @classmethod
    def of(cls, verb: str) -> "VerbParser":
        options = VERBS[verb].options
        about = [paragraph for paragraph in _paragraphs(options) if not paragraph.startswith("Args:")]
        parser = cls(description="\n\n".join(about))
        parser.options, parser.verb = options, verb
        parser.add_argument("--config", action="config", help="a YAML file with any of these options")
        parser.add_class_arguments(options, as_group=False, as_positional=True)
        return parser

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **keywords: Any) -> Any:
        asked = [number for number, word in enumerate(args or ()) if word in HELP]
        if asked and [*(args or ())][asked[0] + 1 : asked[0] + 2] != [ALL]:
            print(self.short_help())
            self.exit()
        if wrong := _misplaced(self.options, args or ()):
            examples = EXAMPLES[self.verb]
            shown = [text for text in examples if not text.removeprefix(self.verb).startswith(" -")] or examples
            self.error(f"{wrong}, as in: crfrnn {shown[0]}")
        words = _gathered(self.options, args or ())
        try:
            for word in words:
                if word.startswith(CONFIG) and Path(word.removeprefix(CONFIG)).is_file():
                    checked_text(word.removeprefix(CONFIG))
            return super().parse_args(words, *rest, **keywords)
        except (ValueError, RecursionError, pyyaml().YAMLError) as error:
            self.error(f"config: not a readable YAML file ({error})")

    def short_help(self) -> str:
        """What it does, three lines to copy, and where the rest is."""
        what = " ".join(_paragraphs(self.options)[0].split())
        examples = "\n".join(f"  crfrnn {example}" for example in EXAMPLES[self.verb])
        return f"{textwrap.fill(what, 100)}\n\n{examples}\n\nEvery option: crfrnn {self.verb} --help all"


def _of_a_type(message: str) -> str:
    """What jsonargparse says of a value of another type, in the words of all other errors; anything else as it is.

    >>> _of_a_type('''Parser key "ray_cpus": Expected a <class 'int'>. Got value: many''')
    'ray-cpus: expected a whole number, got many'
    """
    match = re.fullmatch(r'Parser key "([\w.]+)": (.*)(?:Given|Got) value: (.*)', message)
    found = re.findall(r"Expected an? (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])", match[2]) if match else []
    wanted = [values.replace("'", "") or TYPES.get(kind) for kind, values in found if kind != "NoneType"]
    if match is None or not wanted or None in wanted:
        return message
    return f"{match[1].replace('_', '-')}: expected {' or '.join(filter(None, wanted))}, got {match[3]}"


def _misplaced(options: type, words: Sequence[str]) -> str | None:
    """What is wrong where an option is said that is a word alone, or a word stands alone that is no option's."""
    alone = [field for field in dataclasses.fields(options) if not field.kw_only]
    pairs = list(_pairs(words, _flags(options)))
    for field in alone:
        if any(name == f"--{field.name.replace('_', '-')}" for name, *_ in pairs):
            return f"{field.name}: give it without --{field.name}"
    several = any(field.type in WORDS for field in alone)
    unexpected = [] if several else [word for name, word, _ in pairs if not name][len(alone) :]
    takes = ", ".join(field.name for field in alone)
    takes = f"only {takes} without a name" if takes else "nothing without a name"
    return f"{unexpected[0]!r} is one word too many: give {takes}" if unexpected else None


def _gathered(options: type, words: Sequence[str]) -> list[str]:
    """--config goes first, so that what is said on the command line wins; several words become one list.

    jsonargparse lets the last one win and wants a list as one word of JSON. With nargs the words may not stand on both
    sides of an option, and with "append" they would be added to those of a file, not take their place.
    """
    names = {field: f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(options)}
    several = {name if field.kw_only else "": [] for field, name in names.items() if field.type in WORDS}
    several["--config"] = []
    single = []
    for name, value, said in _pairs(words, _flags(options)):
        if value is not None and name in several:
            several[name].append(value)
        else:
            single += said
    first = [f"{CONFIG}{file}" for file in several.pop("--config")]
    alone = several.pop("", [])
    defaults = [name for field, name in names.items() if not field.kw_only and callable(field.default_factory)]
    prefix = f"{defaults[0]}=" if defaults else ""  # jsonargparse makes an option of what has a default
    lists = [f"{name}={json.dumps(values)}" for name, values in several.items() if values]
    return first + [prefix + json.dumps(alone)] * bool(alone) + single + lists


def _flags(options: type) -> set[str]:
    """What takes no value: --name and --no-name of each option that is a bool."""
    names = [field.name.replace("_", "-") for field in dataclasses.fields(options) if field.type is bool]
    return {f"--{prefix}{name}" for name in names for prefix in ("", "no-")}


def _pairs(words: Sequence[str], flags: set[str]) -> Iterator[tuple[str, str | None, list[str]]]:
    """Each option, its value and the words that say so; a word alone is a value of the option ""."""
    left = deque(words)
    while left:
        word = left.popleft()
        name, equals, value = word.partition("=")
        if not word.startswith("-"):
            yield "", word, [word]
        elif equals:
            yield name, value, [word]
        elif word not in flags and left and not left[0].startswith("-"):
            yield word, left[0], [word, left.popleft()]
        else:
            yield word, None, [word]


def build_parser() -> Parser:
    """A parser with one subcommand for each of `VERBS`."""
    shell_completion = find_spec("shtab") is not None
    set_parsing_settings(add_print_completion_argument=shell_completion)
    parser = Parser(prog="crfrnn", version=__version__, description=_paragraphs(sys.modules["crfrnn"])[0])
    families: dict[str, Parser] = {}
    verbs = _add_verbs(parser)
    for name, (options, *_) in VERBS.items():
        family, _, word = name.rpartition(" ")
        if not family:
            verbs.add_subcommand(word, VerbParser.of(name), help=_paragraphs(options)[0])
        elif family not in families:
            members = ", ".join(other for other in VERBS if other.startswith(f"{family} "))
            families[family] = Parser(description=f"What there is: {members}.")
            verbs.add_subcommand(family, families[family], help=f"{members}.")
    for family, whole in families.items():  # jsonargparse wants the outer level first
        inner = _add_verbs(whole)
        for name, (options, *_) in VERBS.items():
            if name.startswith(f"{family} "):
                inner.add_subcommand(name.split()[-1], VerbParser.of(name), help=_paragraphs(options)[0])
    return parser


def _add_verbs(parser: Parser) -> Any:
    return parser.add_subcommands(required=True, dest="verb", metavar="VERB", title="verbs", description=None)


def _paragraphs(documented: Any) -> list[str]:
    return (inspect.getdoc(documented) or "").split("\n\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status is 0, 2 for wrong usage, 1 for a failed run, 130 after Ctrl-C."""
    parser = build_parser()
    parsed: Namespace = parser.parse_args(arguments)
    verb = parsed.verb
    while (inner := parsed[verb.replace(" ", ".")].get("verb")) is not None:
        verb = f"{verb} {inner}"
    usual, warnings.formatwarning = warnings.formatwarning, warning_format(verb)
    try:
        options = make_options(parser, parsed, verb)
        load(VERBS[verb].module, VERBS[verb].function)(options)
    except UsageError as error:
        print(printable(f"crfrnn {verb}: {error} (crfrnn {verb} --help)"), file=sys.stderr)
        return WRONG_USAGE
    except (ValueError, OSError, MemoryError) as error:
        print(printable(f"crfrnn {verb}: {str(error) or type(error).__name__}"), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as error:
        print(f"crfrnn {verb}: {str(error) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    finally:
        warnings.formatwarning = usual
    return 0


def warning_format(verb: str) -> Callable[..., str]:
    """How warnings are printed: those of this package as one line, as its errors are, and others as always."""
    usual, package = warnings.formatwarning, str(Path(__file__).parent)

    def as_text(message: Warning | str, category: type[Warning], file: str, *rest: Any) -> str:
        ours = file.startswith(package)
        return printable(f"crfrnn {verb}: {message}\n") if ours else usual(message, category, file, *rest)

    return as_text


def make_options(parser: Parser, parsed: Namespace, verb: str) -> Any:
    """The options of a verb as an object of its dataclass; UsageError where they, or their parts, make no sense."""
    try:
        said = vars(parser.instantiate(parsed)[verb.replace(" ", ".")])
        return VERBS[verb].options(**{name: value for name, value in said.items() if name != "config"})
    except ValueError as error:
        raise UsageError(str(error)) from None
