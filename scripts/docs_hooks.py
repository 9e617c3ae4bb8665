"""What the documentation site adds to the files of docs/: pages made from code, formulas as MathML, links into both.

MkDocs calls the functions named `on_...` (mkdocs.yml names this file). What they make is not kept in the repository.
"""

from __future__ import annotations

import html
import os
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import docs_notebooks  # noqa: E402
import docs_reference  # noqa: E402

#: Pages whose text stands elsewhere in the repository.
_ELSEWHERE = {
    "benchmarks.md": "benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
#: Examples, each a page.
_EXAMPLES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples").rglob("*.py"))
#: Links of pages that stand elsewhere, or lead there, by what they name.
_LINKS = {
    **{source: page for page, source in _ELSEWHERE.items()},
    **{source: source.replace(".py", ".md") for source in _EXAMPLES},
    **{f"examples/{name}.ipynb": f"notebooks/{name}.md" for name in ("first_steps", "own_network")},
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    execute = os.environ.get("AJEST_DOCS_NOTEBOOKS") != "0"
    made: dict[str, str | bytes] = {"cli.md": docs_reference.command_line(), "api.md": docs_reference.python()}
    made |= {page: (ROOT / source).read_text() for page, source in _ELSEWHERE.items()}
    for source in _EXAMPLES:
        path = ROOT / source
        made[_LINKS[source]] = f"# `{path.name}`\n\n```python\n{path.read_text()}```\n"
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        made |= docs_notebooks.pages(path, execute)
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links within the repository into links within the site."""
    source = _ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    here = Path(page.file.src_uri).parent

    def link(found: re.Match[str]) -> str:
        target, hash_, anchor = found[2].partition("#")
        if not target or "://" in target:
            return found[0]
        named = os.path.normpath(Path(source).parent / target)
        place = _LINKS.get(named, named.removeprefix("docs/") if named.startswith("docs/") else None)
        if place is None:
            return found[0]
        return f"{found[1]}({os.path.relpath(place, here)}{hash_}{anchor})"

    return re.sub(r"(\[[^\]]*\])\(([^)\s]+)\)", link, markdown)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Formulas as MathML, which browsers show without a script; names of the method's anchors as links."""
    to_root = os.path.relpath(".", Path(page.file.src_uri).parent)
    content = re.sub(
        r'<(span|div) class="arithmatex">(?:\\\(|\\\[)(.*?)(?:\\\)|\\\])</\1>',
        lambda m: convert(html.unescape(m[2]), display="inline" if m[1] == "span" else "block"),
        content,
        flags=re.DOTALL,
    )
    return re.sub(r"\bdocs/method\.md#([a-z-]+)", rf'<a href="{to_root}/method.html#\1">method: \1</a>', content)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site whose browser would fetch something from elsewhere."""
    for path in Path(config.site_dir).rglob("*.html"):
        outside = re.findall(r'<(?:script|link|img)\b[^>]*\b(?:src|href)="(https?://[^"]+)"', path.read_text())
        outside = [address for address in outside if not address.startswith(config.site_url or "\0")]
        if outside:
            raise SystemExit(f"{path.name} fetches {outside[0]}")
