"""What the package hands on: every name can be had, lazily, and starting the program does without torch."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ajest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from docs_reference import PACKAGES  # noqa: E402


def test_every_public_name_is_typed_and_found():
    tree = ast.parse(Path(ajest.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {(f"{n.module}", a.name) for n in typed.body for a in n.names}
    assert names == {(place, name) for place, some in ajest._PLACES.items() for name in some}
    assert sorted(name for _, name in names) == sorted(ajest.__all__)
    for name in ajest.__all__:
        assert name == "POLICIES" or getattr(ajest, name).__module__.startswith("ajest."), name
        assert name in dir(ajest)


def imported(text):
    """(module, name) of what code imports from the package."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ajest":
            yield from ((node.module, alias.name) for alias in node.names)


def test_docs_and_examples_import_public_names_alone():
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    codes = {path: re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL) for path in pages}
    codes |= {path: [path.read_text()] for path in ROOT.glob("examples/**/*.py")}
    for path in ROOT.glob("examples/*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        codes[path] = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    public = {(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__}
    found = {(path.name, *entry) for path, some in codes.items() for code in some for entry in imported(code)}
    assert len(found) > 50
    assert not {entry for entry in found if entry[1:] not in public and entry[2] != "__version__"}


def test_help_needs_no_torch():
    code = "import sys; import ajest.cli.main; assert not {'torch', 'numpy', 'matplotlib', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_says_what_it_is(package):
    """These docstrings are the page on Python of the documentation."""
    module, silent = importlib.import_module(package), []
    for name in module.__all__:
        value = getattr(module, name)
        if not (value.__doc__ or "") or value.__doc__.startswith(f"{name}("):  # what dataclass writes by itself
            silent.append(name)
        for inner, member in vars(value).items() if inspect.isclass(value) else ():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if not inner.startswith("_") and inspect.isfunction(function) and not inspect.getdoc(getattr(value, inner)):
                silent.append(f"{name}.{inner}")
    assert not silent
