"""What the package hands on: every name can be had, lazily, and starting the program does without torch."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ajest


def test_every_public_name_is_typed_and_found():
    tree = ast.parse(Path(ajest.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    names = {(f"{n.module}", a.name) for n in typed.body for a in n.names}
    assert names == {(place, name) for place, some in ajest._PLACES.items() for name in some}
    assert sorted(name for _, name in names) == sorted(ajest.__all__)
    for name in ajest.__all__:
        assert name == "POLICIES" or getattr(ajest, name).__module__.startswith("ajest."), name
        assert name in dir(ajest)


def test_help_needs_no_torch():
    code = "import sys; import ajest.cli.main; assert not {'torch', 'numpy', 'matplotlib', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["ajest", "ajest.bench", "ajest.diffusion", "ajest.tasks", "ajest.selection"])
def test_every_public_name_says_what_it_is(package):
    """These docstrings are the page on Python of the documentation."""
    module, silent = importlib.import_module(package), []
    for name in module.__all__:
        value = getattr(module, name)
        if not (value.__doc__ or "") or value.__doc__.startswith(f"{name}("):  # what dataclass writes by itself
            silent.append(name)
        for inner, member in vars(value).items() if inspect.isclass(value) else ():
            function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
            if not inner.startswith("_") and inspect.isfunction(function) and not function.__doc__:
                silent.append(f"{name}.{inner}")
    assert not silent
