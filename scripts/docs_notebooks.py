"""Notebooks as pages of the site, executed while it is built, so that a page shows what its code does today."""

from __future__ import annotations

import base64
import html
import os
import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]

#: Seconds that a cell may take.
_PATIENCE = 3600
#: What the terminal would colour.
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def pages(path: Path, execute: bool) -> dict[str, str | bytes]:
    """The page of a notebook and its images, by their places in the site.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    if execute:
        run(notebook)
    images: dict[str, bytes] = {}
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.source.strip():
            parts.append(f"```python\n{cell.source}\n```")
            parts += [_shown(output, path.stem, images) for output in cell.outputs]
    note = f"This page is the notebook `examples/{path.name}`" + (", executed." if execute else ", not executed.")
    return {f"notebooks/{path.stem}.md": "\n\n".join([*parts, note]) + "\n", **images}


def run(notebook: NotebookNode) -> None:
    """Execute all cells in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
        NotebookClient(notebook, timeout=_PATIENCE, resources={"metadata": {"path": folder}}).execute()


def _shown(output: NotebookNode, stem: str, images: dict[str, bytes]) -> str:
    """Markdown of what a cell printed or drew."""
    if output.output_type == "stream":
        return f"```text\n{_ESCAPES.sub('', output.text).rstrip()}\n```"
    data = output.get("data", {})
    if "image/png" in data:
        name = f"{stem}-{len(images) + 1}.png"
        images[f"notebooks/{name}"] = base64.b64decode(data["image/png"])
        return f"![what the cell above draws]({name})"
    if "text/html" in data:
        return f'<div class="output" markdown="0">{data["text/html"]}</div>'.replace("\n\n", "\n")
    return f"```text\n{html.unescape(data.get('text/plain', ''))}\n```"
