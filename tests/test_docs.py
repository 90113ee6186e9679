"""What the documents say of the code is true: links, names of modules and functions, paths of files, code to copy."""

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.support.places import ROOT

FOLDERS = ("benchmarks", "configs", "crfrnn", "demo", "diagnostics", "docs", "packaging", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
WRITTEN = {"table.md", "benchmarks/results/gpu.md", "benchmarks/results/fit"}  # by commands, and not kept
FORMER = re.compile(r"<!-- former paths -->.*?<!-- end -->", re.DOTALL)  # the changelog's table: names that are gone
LINK = re.compile(r"\]\(([^)\s]+)\)")
DOTTED = re.compile(r"(?<![\w./@-])crfrnn(?:\.[A-Za-z_]\w*)+")
PLACE = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w")  # from the root
FILE = re.compile(r"(?<![\w./:<-])[\w][\w./-]*\.(?:py|md)\b")  # from wherever the reader is


def test_links_lead_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        for link in LINK.findall(FENCE.sub("", document.read_text())):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            if not target.exists() or (anchor and anchor not in _anchors(target)):
                broken.append(f"{_name(document)}: {link}")
    assert not broken, "\n".join(broken)


def test_dotted_names_resolve() -> None:
    unknown = [
        f"{_name(path)}: {dotted}"
        for path, text in _texts()
        for dotted in sorted(set(DOTTED.findall(text)))
        if not _resolves(dotted)
    ]
    assert not unknown, "\n".join(unknown)


def test_named_files_exist() -> None:
    files = [f"/{_name(path)}" for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    files += [f"/{path.name}" for path in ROOT.iterdir()]
    missing = []
    for path, text in _texts():
        places = {place for place in PLACE.findall(text) if not (ROOT / place).exists()}
        names = {name for name in FILE.findall(text) if not any(file.endswith(f"/{name}") for file in files)}
        missing += [f"{_name(path)}: {name}" for name in sorted((places | names) - WRITTEN)]
    assert not missing, "\n".join(missing)


def test_code_in_documents_parses_and_imports() -> None:
    wrong = []
    for document in DOCUMENTS:
        for code in _python_blocks(document):
            for node in ast.walk(ast.parse(code, filename=str(document))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "crfrnn":
                    names = [f"{node.module}.{alias.name}" for alias in node.names if _imports(node.module or "")]
                    names = names or [f"{node.module} as a module"]
                    wrong += [f"{_name(document)}: {name}" for name in names if not _resolves(name)]
                elif isinstance(node, ast.Import):
                    ours = [alias.name for alias in node.names if alias.name.split(".")[0] == "crfrnn"]
                    wrong += [f"{_name(document)}: {name} as a module" for name in ours if not _imports(name)]
    assert not wrong, "\n".join(wrong)


def _texts() -> Iterator[tuple[Path, str]]:
    """Every document, and the docstrings and comments of every source file."""
    for document in [*DOCUMENTS, *(ROOT / "docs/reference").glob("*.rst")]:
        yield document, FORMER.sub(_without_first_cells, document.read_text())
    for source in SOURCES:
        code = source.read_text()
        tokens = tokenize.generate_tokens(io.StringIO(code).readline)
        comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docstrings = [
            ast.get_docstring(node) or "" for node in ast.walk(ast.parse(code)) if isinstance(node, documented)
        ]
        yield source, "\n".join([*docstrings, *comments])


def _without_first_cells(table: re.Match[str]) -> str:
    return re.sub(r"^\|[^|]*\|", "|", table.group(), flags=re.MULTILINE)


def _python_blocks(document: Path) -> Iterator[str]:
    for indent, language, code in FENCE.findall(document.read_text()):
        if language == "python":
            yield re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)


def _anchors(markdown: Path) -> set[str]:
    """GitHub's: a heading in small letters, spaces as hyphens, without punctuation."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", markdown.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _resolves(dotted: str) -> bool:
    """Whether modules, and then attributes, lead along this path."""
    found, parts = importlib.import_module("crfrnn"), dotted.split(".")
    for count, part in enumerate(parts[1:], start=2):
        if hasattr(found, part):
            found = getattr(found, part)
        elif not _imports(".".join(parts[:count])):
            return False
        else:
            found = importlib.import_module(".".join(parts[:count]))
    return True


def _imports(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return not (error.name or "").startswith("crfrnn")  # an optional package that is not installed is no fault here
    return True


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
