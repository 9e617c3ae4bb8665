"""The house stands in storeys: a module imports from its own and from those below it, and nothing in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ajest

TOP = Path(ajest.__file__).parent

#: From the ground up. A package that is not named here belongs to the longest name that it begins with.
STOREYS = (
    "errors",
    "runtime",
    "storage",
    "diffusion",
    "selection",
    "integrations",
    "tasks.base",
    "tasks",
    "training",
    "jobs",
    "bench.plan",
    "bench.run",
    "bench.read",
    "bench.report",
    "bench",
    "study",
    "claims",
    "cli",
)


def modules() -> dict[str, Path]:
    """All modules by name without "ajest.", but the face of the package itself."""
    files = {".".join(p.relative_to(TOP).with_suffix("").parts): p for p in TOP.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    return {name: path for name, path in files.items() if name not in ("__init__", "__main__")}


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules that one imports, wherever in its file."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name.removeprefix("ajest.") for a in node.names if a.name.startswith("ajest."))
        if not isinstance(node, ast.ImportFrom):
            continue
        base = (node.module or "").split(".")
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ["ajest", *above, *(part for part in base if part)]
        if base[0] == "ajest":
            origin = ".".join(base[1:])
            for alias in node.names:
                inner = f"{origin}.{alias.name}".strip(".")
                yield inner if inner in known else origin


def storey(name: str) -> int:
    """The height of a module."""
    fitting = [s for s in STOREYS if name == s or name.startswith(f"{s}.")]
    assert fitting, f"{name} belongs to no storey"
    return STOREYS.index(max(fitting, key=len))


def test_no_module_imports_from_a_higher_storey():
    known = modules()
    upward = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in imports(name, path, known)
        if other and storey(other) > storey(name)
    ]
    assert not upward


def test_no_circles():
    known = modules()
    needs = {
        name: {other for other in imports(name, path, known) if other in known} - {name} for name, path in known.items()
    }
    while free := {name for name, others in needs.items() if not others & needs.keys()}:
        needs = {name: others for name, others in needs.items() if name not in free}
    assert not needs, f"in or above a circle: {sorted(needs)}"


def test_it_sees_the_imports():
    """An import of each form, one level up and in a function too."""
    known = modules()
    seen = set(imports("bench.run.jobs", known["bench.run.jobs"], known))
    assert {"bench.run.calibration", "bench.plan.config", "errors", "training.run", "runtime.threads"} <= seen
    assert "bench.report.page" in set(imports("cli.bench", known["cli.bench"], known))
