"""Figures of the documentation that no bench makes: scripts/docs_figures.py flow | terminal | report BENCH

flow        docs/flow.svg: what one step does
terminal    docs/terminal.svg: a bench at the terminal, recorded from a real one (a minute)
report      docs/report.png: the first screen of the report in the folder BENCH, by a headless Chromium
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

_INK, _LINE, _FILL, _MARK = "#1f2933", "#52606d", "#f5f7fa", "#00796b"


def flow() -> None:
    """One step, from left to right: what flows stands in boxes, who moves it on arrows."""
    boxes = [
        (20, 60, 150, "super-batch", "B noised examples"),
        (250, 60, 150, "scores", "a number each"),
        (480, 60, 150, "indices", "of the kept b"),
        (710, 60, 150, "kept batch", "b noised examples"),
        (940, 60, 150, "new weights", "and their averages"),
    ]
    arrows = [
        (170, 250, "score", "no graph"),
        (400, 480, "pick", "policy"),
        (630, 710, "take", ""),
        (860, 940, "update", ""),
    ]
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1110 330" font-family="Helvetica, Arial, sans-serif" '
        'role="img" aria-label="One step: draw a super-batch, score it with learner and reference, pick, train on it">',
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{_LINE}"/></marker></defs>',
        '<rect width="1110" height="330" fill="#ffffff"/>',
    ]
    parts += [_box(*box) for box in boxes]
    for start, end, what, how in arrows:
        middle = (start + end) / 2
        parts += [
            _arrow(start, 95, end - 2, 95),
            _text(middle, 84, what, 15, _MARK),
            _text(middle, 116, how, 12, _LINE),
        ]
    parts += [_box(190, 190, 130, "learner", "in training"), _box(340, 190, 130, "reference", "often the guide")]
    parts += [_arrow(255, 190, 300, 133), _arrow(405, 190, 350, 133)]
    parts += [
        _box(20, 190, 150, "source", "data and noise"),
        _arrow(95, 190, 95, 133),
        _text(128, 166, "draw", 15, _MARK),
    ]
    parts += [
        f'<path d="M1015 130V285H255V263" fill="none" stroke="{_LINE}" stroke-dasharray="5 4" marker-end="url(#a)"/>',
        _text(690, 276, "the next step scores with the new weights", 13, _LINE),
        _text(555, 316, "Noise belongs to the batch, so learner and reference answer one question.", 14, _INK),
        _text(555, 30, "One training step", 18, _INK),
        "</svg>\n",
    ]
    (DOCS / "flow.svg").write_text("\n".join(parts))


def _box(x: float, y: float, width: float, name: str, about: str) -> str:
    middle = x + width / 2
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="70" rx="8" fill="{_FILL}" stroke="{_LINE}"/>'
        + _text(middle, y + 31, name, 17, _INK)
        + _text(middle, y + 53, about, 12.5, _LINE)
    )


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<path d="M{x} {y}L{to_x} {to_y}" stroke="{_LINE}" marker-end="url(#a)"/>'


def _text(x: float, y: float, text: str, size: float, colour: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="middle" fill="{colour}">{text}</text>'


def terminal() -> None:
    """A bench at the terminal, as it really ran here: what is typed, and what is printed."""
    from rich.console import Console
    from rich.text import Text

    typed = "ajest bench tree --arms baseline ajest random --seeds 0 1 --iterations 192 --out first"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", *typed.split()]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    console = Console(record=True, width=150, file=io.StringIO())
    console.print(Text(f"$ {typed}", style="bold"))
    console.print(Text.from_ansi(done.stdout))
    image = console.export_svg(title="ajest bench")
    # Nothing is to be fetched by whoever looks: the fonts that rich names stand on another server.
    while (start := image.find("@font-face")) >= 0:
        image = image[:start] + image[image.index("}", start) + 1 :]
    (DOCS / "terminal.svg").write_text(
        image.replace("Fira Code, monospace", "Menlo, Consolas, DejaVu Sans Mono, monospace")
    )


def report(bench: Path) -> None:
    """The first screen of a report."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("no Chromium is installed")
    page = (bench / "report.html").resolve().as_uri()
    shot = f"--screenshot={DOCS / 'report.png'}"
    command = [browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,960", shot, page]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["flow"]:
            flow()
        case ["terminal"]:
            terminal()
        case ["report", folder]:
            report(Path(folder))
        case _:
            raise SystemExit(__doc__)
