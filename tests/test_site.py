"""The documentation's site: nothing public is missing from the reference, and both languages say the same."""

import importlib
import re
from pathlib import Path

import pytest

from crfrnn.cli import VERBS
from tests.support.places import ROOT
from tests.test_docs import FENCE

DOCS = ROOT / "docs"
CHINESE = sorted((DOCS / "zh").glob("*.md"))

# What users import from, beside the names at the root.
PUBLIC = (
    "crfrnn",
    "crfrnn.bilateralfilter",
    "crfrnn.commands.cluster",
    "crfrnn.inference.solvers",
    "crfrnn.losses",
    "crfrnn.pydensecrf.utils",
)
REFERENCE = (DOCS / "reference/index.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module):
    """By itself, or as a member of its module: of `__all__`, or of all that the module itself defines."""
    found = importlib.import_module(module)
    whole = re.search(rf"automodule:: {re.escape(module)}\n   :members:\n", REFERENCE)
    rooms = {"crfrnn": {"cluster", "losses", "solvers"}}.get(module, set())
    missing = [
        name for name in getattr(found, "__all__", [])
        if not whole and f":: {module}.{name}\n" not in REFERENCE and name not in rooms
    ]  # fmt: skip
    assert not missing
    assert whole or module == "crfrnn"


def test_every_class_of_the_drop_in_is_in_the_reference():
    densecrf = importlib.import_module("crfrnn.pydensecrf.densecrf")
    listed = re.search(r"automodule:: crfrnn.pydensecrf.densecrf\n   :members: (.*)\n", REFERENCE)
    own = {
        name
        for name, value in vars(densecrf).items()
        if isinstance(value, type) and value.__module__ == densecrf.__name__ and not name.startswith("_")
    }
    assert listed
    assert own == set(listed[1].split(", "))


def test_every_verb_is_in_the_reference():
    page = (DOCS / "reference/command-line.rst").read_text(encoding="utf-8")
    for verb, (options, _, _) in VERBS.items():
        title = f"``crfrnn {verb}``"
        assert f"\n{title}\n{'-' * len(title)}\n\n.. autoclass:: {options.__module__}.{options.__name__}\n" in page


def guides() -> set[str]:
    """The pages under "Start" and "Guides" in the navigation."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    entries = re.findall(r":caption: (?:Start|Guides)\n\n(.*?)\n:::", index, re.DOTALL)
    return {name for block in entries for name in block.split("\n") if "/" not in name}


def test_every_guide_has_a_chinese_page():
    pages = {path.stem for path in CHINESE}
    assert pages == guides() | {"index"}


@pytest.mark.parametrize("chinese", CHINESE, ids=lambda path: path.stem)
def test_chinese_pages_have_the_same_code_and_sections(chinese):
    """Where an English page was changed, its Chinese one has to follow."""
    ours, theirs = (path.read_text(encoding="utf-8") for path in (DOCS / chinese.name, chinese))
    assert _code(theirs) == ([] if chinese.stem == "index" else _code(ours))
    assert chinese.stem == "index" or _levels(theirs) == _levels(ours)


def test_the_chinese_readme_has_no_code_of_its_own():
    ours, theirs = (_code((ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "README.zh-CN.md"))
    assert theirs
    assert [block for block in theirs if block not in ours] == []


def _code(text: str) -> list[tuple[str, str]]:
    return [(language, code) for _, language, code in FENCE.findall(text)]


def _levels(text: str) -> list[str]:
    return re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)


def glossary() -> list[tuple[str, str, list[str]]]:
    """(English, Chinese, other words for it that are not used) of each row of docs/glossary.md."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]*) \|", (DOCS / "glossary.md").read_text("utf-8"), re.MULTILINE)
    return [(a.strip().lower(), b.strip(), [word for word in c.split("、") if word.strip()]) for a, b, c in rows[1:]]


def _words(path: Path) -> str:
    """The text without its code."""
    return re.sub(r"`[^`]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))


def test_chinese_pages_use_the_words_of_the_glossary():
    """Those of the site, and the page of `crfrnn serve`."""
    wrong = []
    for path in [*CHINESE, ROOT / "README.zh-CN.md", ROOT / "crfrnn/web/wording.py"]:
        text = _words(path)
        wrong += [
            f"{path.name}: {word} is {chinese}" for _, chinese, others in glossary() for word in others if word in text
        ]
    assert not wrong, "\n".join(wrong)


def test_every_term_of_the_glossary_is_used_in_both_languages():
    english = " ".join(_words(path) for path in DOCS.glob("*.md") if path.stem != "glossary").lower()
    chinese = " ".join(_words(path) for path in CHINESE)
    for term, translated, _ in glossary():
        assert any(word in english for word in (term, term.replace("-", " "))), term
        assert translated in chinese, translated


def test_a_term_is_translated_where_it_is_used():
    """A page that speaks of message passing in English speaks of it in Chinese, by the glossary's word."""
    missing = []
    for path in CHINESE:
        english, chinese = _words(DOCS / path.name).lower(), _words(path)
        missing += [
            f"{path.name}: {term} ({translated})"
            for term, translated, _ in glossary()
            if len(re.findall(rf"\b{re.escape(term)}\b", english)) > 2 and translated not in chinese
        ]
    assert not missing, "\n".join(missing)
