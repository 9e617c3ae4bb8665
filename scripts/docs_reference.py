"""The two pages of reference that are made from the code: the command line and the public names."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: The packages whose public names the page on Python shows, with what each is for.
PACKAGES = (
    "ajest",
    "ajest.bench",
    "ajest.diffusion",
    "ajest.tasks",
    "ajest.tasks.vectors",
    "ajest.tasks.images",
    "ajest.selection",
    "ajest.integrations.diffusers",
)


def command_line() -> str:
    """The page of all commands, from what their --help says."""
    from ajest.cli.data import DATA_VERBS
    from ajest.cli.main import START, VERBS

    parts = ["# Command line", f"`ajest` alone shows what to begin with:\n\n```text\n{START}\n```"]
    parts.append("This page is made from what `ajest COMMAND --help` says.")
    for verb in (*VERBS, *(f"data {verb}" for verb in DATA_VERBS)):
        parts.append(f"## ajest {verb}\n\n{_verb(_help(verb))}")
    return "\n\n".join(parts) + "\n"


def _help(verb: str) -> str:
    environment = {**os.environ, "COLUMNS": "100", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "ajest", *verb.split(), "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def _verb(text: str) -> str:
    """Markdown of one command's help: what it does, how it is typed, a table of options for each box."""
    head, *boxes = re.split(r"^╭─ (.+?) ─+╮$", text, flags=re.MULTILINE)
    usage, _, about = head.partition("\n\n")
    about = re.sub(r"^Example: (.*(?:\n {9}.*)*)", _example, about.strip(), flags=re.MULTILINE)
    tables = [_box(title, body) for title, body in zip(boxes[::2], boxes[1::2], strict=True)]
    return "\n\n".join([about, f"```text\n{usage}\n```", *filter(None, tables)])


def _example(found: re.Match[str]) -> str:
    lines = "\n".join(line.strip() for line in found[1].splitlines())
    return f"```sh\n{lines}\n```"


def _box(title: str, body: str) -> str:
    """A box of options as a table, with what stands above its line as a sentence."""
    lines = [line[2:].removesuffix("│").rstrip() for line in body.splitlines() if line.startswith("│")]
    rule = next((i for i, line in enumerate(lines) if line.startswith("─")), -1)
    about, options = " ".join(line.strip() for line in lines[: max(rule, 0)]), lines[rule + 1 :]
    rows: list[list[str]] = []
    for line in options:
        if line and not line.startswith(" "):
            name, _, text = line.partition("  ")
            rows.append([name, text.strip()])
        elif rows:
            rows[-1][1] = f"{rows[-1][1]} {line.strip()}".strip()
    rows = [[name, text] for name, text in rows if not name.startswith("-h,")]
    if not rows:
        return ""
    table = "\n".join(f"| `{name}` | {_cell(text)} |" for name, text in rows)
    head = {"positional arguments": "Arguments"}.get(title, title.removesuffix(" options").capitalize())
    return f"**{head}.** {about}\n\n| option | what it does |\n| --- | --- |\n{table}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[").replace("(required)", "**(required)**")


def python() -> str:
    """The page of all public names, for mkdocstrings to fill."""
    parts = ["# Python", "All public names, package by package. What is not here is private and may change."]
    for name in PACKAGES:
        package = importlib.import_module(name)
        first = (package.__doc__ or "").split("\n")[0]
        parts.append(f"## {name}\n\n{first}")
        seen = public(name)
        parts += [f"::: {name}.{entry}" for entry in seen]
    return "\n\n".join(parts) + "\n"


def public(name: str) -> list[str]:
    """The public names of a package that no package before it on the page shows."""
    before: set[str] = set()
    for other in PACKAGES[: PACKAGES.index(name)]:
        before |= set(importlib.import_module(other).__all__)
    return [entry for entry in importlib.import_module(name).__all__ if entry not in before]
