"""The report: one self-contained page, and all numbers as CSV and JSON beside it. A pure function of a folder."""

from __future__ import annotations

from pathlib import Path

from ajest.bench.read.findings import RECOMMENDED, Findings, findings
from ajest.bench.read.folder import read
from ajest.storage.checkpoint import write_atomic, write_json

from .drawing import Figures, draw, write_figures
from .export import as_csv, as_json
from .markdown import as_markdown
from .tables import html_table, templates


def write_report(root: Path) -> Findings:
    """Write report.html, results.csv, .json and .md, and figures/ into a bench's folder; returns what they say.

    Works on half-finished benches and says what is missing.

    Raises:
        UserError: it is no bench, or its folder cannot be written to.
    """
    found = findings(read(root))
    figures = draw(found)
    write_figures(root, figures)
    write_atomic(root / "report.html", render(found, figures))
    write_atomic(root / "results.csv", as_csv(found))
    write_atomic(root / "results.md", as_markdown(found, figures))
    write_json(root / "results.json", as_json(found))
    return found


def render(findings: Findings, figures: Figures) -> str:
    """The page."""
    page = templates().get_template("report.html")
    return page.render(
        config=findings.results.config, found=findings, figures=figures, table=html_table, recommended=RECOMMENDED
    )


def html_findings(findings: Findings) -> str:
    """Answer, verdict and headline tables alone, for a notebook."""
    return templates().get_template("verdict.html").render(found=findings, table=html_table)
