"""What the package hands on: every name can be had, lazily, and starting the program does without torch."""

import ast
import subprocess
import sys
from pathlib import Path

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
