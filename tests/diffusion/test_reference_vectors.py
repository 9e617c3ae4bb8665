"""The test vectors that come with the tests: small, named in their README, and those of the script that makes them."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "reference_vectors.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("reference_vectors", SCRIPT)
    module = sys.modules["reference_vectors"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_stored_answers_are_those_of_the_script(script, reference):
    stored, made = np.load(reference / "edm2.npz"), script.vectors()
    assert set(stored.files) == made.keys()
    for name, value in made.items():
        if value.dtype.kind == "U":
            assert str(stored[name]) == str(value)
        else:
            np.testing.assert_allclose(stored[name], value, rtol=0, atol=1e-11)


def test_every_file_is_small_and_in_the_readme(reference):
    text = (reference / "README.md").read_text()
    files = [path for path in reference.iterdir() if path.name != "README.md"]
    assert all(f"| `{path.name}` |" in text for path in files)
    assert sum(path.stat().st_size for path in files) < 400_000
