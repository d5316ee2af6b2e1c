"""The optimizers' pages say what the code does: arguments, defaults, examples and links are checked here."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from bbi_lightning import optim

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "optim").glob("*.md"))
LINKED = [DOCS / "README.md", *PAGES]
MEMBERS = [getattr(optim, name) for name in optim.__all__ if name != "ECD"]
LARGEST_FIGURE = 120_000
SECTIONS = (
    "## Equations",
    "## What holds",
    "## When to use it",
    "Shallow valley",
    "eference:",
    "ublished code",
)


def page_of(member: type) -> Path:
    return DOCS / "optim" / f"{member.__module__.rsplit('.', 1)[-1]}.md"


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def symbol_table(page: Path) -> list[tuple[str, str]]:
    """(argument, default as written) of every row of the table whose header starts with symbol, argument."""
    rows = page.read_text().split("| symbol | argument |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]
    return [(row[1].strip("`"), row[-1]) for row in cells]


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
def test_every_optimizer_has_a_page_that_names_its_arguments_and_defaults(member: type):
    expected = [(name, parameter.default) for name, parameter in inspect.signature(member).parameters.items()]
    found = [
        (name, inspect.Parameter.empty if written == "required" else ast.literal_eval(written))
        for name, written in symbol_table(page_of(member))
    ]
    assert found == expected
    assert [type(default) for _, default in found] == [type(default) for _, default in expected]


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.__name__)
def test_every_page_has_the_same_parts(member: type):
    text = page_of(member).read_text()
    assert text.startswith(f"# {member.__name__}: ")
    assert [part for part in SECTIONS if part not in text] == []
    assert f"import {member.__name__}" in text or f", {member.__name__}" in text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_examples_run(page: Path):
    """Blocks of one page run in order and share their names."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)
    assert blocks
    names: dict[str, object] = {"__name__": page.stem}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"{page.name}, example {number}", "exec"), names)


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page: Path):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        path, _, anchor = target.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        file = page if not path else (page.parent / path).resolve()
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_formulas_survive_markdown(page: Path):
    """GitHub takes the backslash from \\, \\; \\! \\{ inside $…$, and a bare | ends a table's cell."""
    for formula in re.findall(r"\$[^$\n]+\$", without_code(page.read_text())):
        assert not re.search(r"\\[,;:!{}|\\]", formula), formula
        assert "|" not in formula, formula


def test_every_figure_is_small_shown_and_drawn_by_the_script():
    figures = DOCS / "optim" / "figures"
    shown = {name for page in PAGES for name in re.findall(r"\(figures/([\w.]+)\)", page.read_text())}
    assert {file.name for file in figures.iterdir()} == shown
    assert {
        file.name: file.stat().st_size for file in figures.iterdir() if file.stat().st_size > LARGEST_FIGURE
    } == {}
    drawn = re.findall(r"(?:paths|measures)\.(\w+),", (DOCS / "optim" / "figures.py").read_text())
    assert {f"{name}.svg" for name in drawn} == shown


def test_every_page_is_reached_from_the_index():
    targets = re.findall(r"\]\(([^)#\s]+)", (DOCS / "README.md").read_text())
    assert {f"optim/{page.name}" for page in PAGES} <= set(targets)
