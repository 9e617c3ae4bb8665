"""A table in three formats."""

from __future__ import annotations

import re
from functools import cache

import jinja2
from markupsafe import Markup, escape
from rich.table import Table as RichTable
from rich.text import Text

from ajest.bench.read.table import Table, TableCell, Tone

#: How Markdown and a terminal show what is decided; a page has its colours in its style sheet.
_MARKS: dict[Tone, tuple[str, str]] = {"better": ("**", "**"), "worse": ("*", "*"), "equivalent": ("≈ ", "")}
_STYLES: dict[Tone, str] = {"better": "green", "worse": "red", "equivalent": "blue"}
#: What these marks mean, in Markdown.
MARKS = "**Bold**: certainly better; *italic*: certainly worse; ≈: equivalent."


@cache
def templates() -> jinja2.Environment:
    """The templates of a page; what they print is escaped, and a name that is not there is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("ajest.bench.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["prose"] = html_prose
    return found


def html_prose(text: str) -> Markup:
    """A sentence for a page: what stands in backticks is code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def html_table(table: Table) -> Markup:
    """The table and its notes for a page; its title is for a heading above."""
    return templates().get_template("table.html").module.table(table)  # type: ignore[attr-defined]


def markdown_table(table: Table) -> str:
    """The table alone for a document: **better**, *worse*, and details in brackets, see `MARKS`."""
    heads = [_plain(cell.value) for cell in table.heads]
    lines = [heads, ["---"] * len(heads), *([_markdown(cell) for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markdown(cell: TableCell) -> str:
    before, after = _MARKS.get(cell.tone, ("", ""))
    value = f"{before}{_plain(cell.value)}{after}"
    return f"{value} ({_plain(cell.detail)})" if cell.detail else value


def _plain(text: str) -> str:
    """On one line, and without what would end a cell."""
    return text.replace("\n", " ").replace("|", "\\|")


def rich_table(table: Table) -> RichTable:
    """The table for a terminal: green for better, red for worse, blue for equivalent."""
    found = RichTable(title=Text(table.title), title_justify="left")
    for i, head in enumerate(table.heads):
        found.add_column(Text(head.value), justify="right" if i else "left")
    for row in table.rows:
        found.add_row(*(_rich(cell) for cell in row))
    return found


def _rich(cell: TableCell) -> Text:
    text = f"{cell.value} ({cell.detail})" if cell.detail else cell.value
    return Text(text, style=_STYLES.get(cell.tone, ""))
