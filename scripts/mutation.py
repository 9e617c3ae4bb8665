"""What share of small faults the fast tests notice: `python scripts/mutation.py [FILE ...] [--tests FILE ...]`.

Every mutant is one change of the kinds in `Mutations`, in one of the modules that judge (or in those named). It lives
in a forked child of one process that has imported and run everything once, so that it costs the tests that call the
changed function, the most specific first, up to the first failure or some seconds. What was found is kept in
runs/mutation.jsonl: mutants that were killed are not tried again while their source stays the same, survivors are.

Left out, because they change nothing that a test could see: docstrings, annotations, imports, decorators, format
specifications, and `strict` of `zip`, whose sequences have one length.
"""

from __future__ import annotations

import argparse
import ast
import copy
import gc
import hashlib
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
JUDGES = [
    *(
        f"bench/read/{name}.py"
        for name in ("statistics", "verdict", "wording", "cost", "time_to_quality", "published", "results", "numbers")
    ),
    *("bench/report/export.py", "study/verdict.py", "study/results.py"),
]
TESTS = ["statistics", "bench_verdict", "bench_time_to_quality", "bench_results", "bench_published", "study_verdict"]
MOST_SECONDS = 6.0  # of tests for one mutant, as long as they took without it
UNKNOWN = 77  # exit status of a child that could not try
CPU_SECONDS = 30  # after which a child that does not come to an end is a mutant that was noticed

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
# `*` becomes `+`, not `/`: a sign of 1 or -1 multiplies as it divides.
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Mutations(ast.NodeVisitor):
    """Finds the places of a module that can be changed, and makes one of the changes.

    Comparisons and their bounds, operators, and / or, signs and negations, constants, min / max and any / all,
    conditions, returned values, and statements that are dropped.

    Args:
        wanted: number of the change to make; None only counts and describes.
    """

    def __init__(self, wanted: int | None = None) -> None:
        self.wanted, self.owner = wanted, ""
        self.found: list[tuple[int, str, str]] = []
        self.where = ""  # outermost function, or method with its class

    def at(self, node: Any, what: str) -> bool:
        """Whether this change is the wanted one."""
        self.found.append((getattr(node, "lineno", 0), self.where, what))
        return len(self.found) - 1 == self.wanted

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.owner = f"{node.name}."
        self.block(node)
        self.owner = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = self.where
        self.where = before or f"{self.owner}{node.name}"
        for default in [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]:
            self.visit(default)
        self.block(node)
        self.where = before

    def block(self, node: Any) -> None:
        """A module's, class's or function's statements, without the docstring."""
        docstring = (
            bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
        )
        for statement in node.body[docstring:]:
            self.visit(statement)

    def visit_Module(self, node: ast.Module) -> None:
        self.block(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Import(self, node: ast.Import) -> None: ...

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None: ...

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":
            self.visit(node.value)

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if self.where or not isinstance(node.value, ast.Name):  # else a type alias
            self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for i, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                if self.at(node, f"{type(operator).__name__} -> {other.__name__}"):
                    node.ops[i] = other()
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        other = OPERATORS.get(type(node.op))
        if other and self.at(node, f"{type(node.op).__name__} -> {other.__name__}"):
            node.op = other()
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        other = ast.Or if isinstance(node.op, ast.And) else ast.And
        if self.at(node, f"{type(node.op).__name__} -> {other.__name__}"):
            node.op = other()
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub) and self.at(node, "sign dropped"):
            node.op = ast.UAdd()
        if isinstance(node.op, ast.Not) and self.at(node, "not dropped"):
            node.op, node.operand = ast.Not(), ast.UnaryOp(ast.Not(), node.operand)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool | int | float | str) and self.at(node, f"{value!r} changed"):
            node.value = other_constant(value)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in OPPOSITES:
            other = OPPOSITES[node.func.id]
            if self.at(node, f"{node.func.id} -> {other}"):
                node.func.id = other
        self.generic_visit(node)

    def condition(self, node: Any) -> None:
        if self.at(node, "condition negated"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        self.generic_visit(node)

    visit_If = visit_IfExp = visit_While = condition

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for i, test in enumerate(node.ifs):
            if self.at(test, "filter negated"):
                node.ifs[i] = ast.UnaryOp(ast.Not(), test)
        self.generic_visit(node)

    def visit_Return(self, node: ast.Return) -> None:
        none = node.value is None or (isinstance(node.value, ast.Constant) and node.value.value is None)
        if not none and self.at(node, "returns None"):
            node.value = ast.Constant(None)
        self.generic_visit(node)

    def dropped(self, node: Any) -> None:
        if self.at(node, f"{type(node).__name__} dropped"):
            # Turned into an expression that does nothing, in its place.
            node.__class__, node.value = ast.Expr, ast.Constant(None)
            return
        self.generic_visit(node)

    visit_Expr = visit_AugAssign = visit_Continue = visit_Break = visit_Raise = dropped


def other_constant(value: str | float) -> str | float:
    """A constant to be put in the place of this one."""
    if isinstance(value, str):
        return f"XX{value}"
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else 2 * value + 1


def mutants_of(source: str) -> list[tuple[int, str, str]]:
    """(line, outermost function or method, change) of every mutant."""
    finder = Mutations()
    finder.visit(ast.parse(source))
    return finder.found


def mutated(source: str, number: int) -> ast.Module:
    tree = copy.deepcopy(ast.parse(source))
    Mutations(number).visit(tree)
    return ast.fix_missing_locations(tree)


def put_in(module: ModuleType, tree: ast.Module, where: str) -> None:
    """Let a change take effect, in a process where all modules have been imported from each other already."""
    code = compile(tree, str(module.__file__), "exec")
    fresh = ModuleType(module.__name__)
    fresh.__dict__.update({"__package__": module.__package__, "__file__": module.__file__})
    sys.modules[module.__name__] = fresh  # dataclasses look their module up
    exec(code, fresh.__dict__)
    sys.modules[module.__name__] = module
    function, changed = function_of(module, where), function_of(fresh, where)
    if function and changed:
        function.__code__, function.__defaults__ = changed.__code__, changed.__defaults__
        function.__kwdefaults__ = changed.__kwdefaults__
        return
    for name, value in vars(fresh).items():
        before = vars(module).get(name)
        if name.startswith("__") or isinstance(value, ModuleType | FunctionType) or value is before:
            continue
        for other in list(sys.modules.values()):
            if other is module or vars(other).get(name, fresh) is before:
                setattr(other, name, value)


def noting(file: Path, seen: set[tuple[str, str]]) -> dict[FunctionType, CodeType]:
    """Let every function of a module say that it was called; returns what they were, to be put back."""
    module = module_of(file)
    module.__dict__["_called"] = lambda where: seen.add((str(file), where))
    tree = ast.parse(file.read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for prefix, body in (("", tree.body), *((f"{node.name}.", node.body) for node in classes)):
        for node in (n for n in body if isinstance(n, ast.FunctionDef)):
            node.body.insert(0, ast.parse(f"_called({prefix + node.name!r})").body[0])
    before: dict[FunctionType, CodeType] = {}
    for code in codes(compile(ast.fix_missing_locations(tree), str(file), "exec")):
        function = None if "<" in code.co_qualname else function_of(module, code.co_qualname)
        if function is not None:
            before[function], function.__code__ = function.__code__, code
    return before


def module_of(file: Path) -> ModuleType:
    return importlib.import_module(".".join(file.relative_to(ROOT / "src").with_suffix("").parts))


def codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def function_of(module: ModuleType, where: str) -> FunctionType | None:
    """The function or method of a qualified name; None for what stands outside of functions."""
    found: Any = module
    for part in where.split("."):
        found = vars(found).get(part) if part else None
        found = getattr(found, "fget", None) or getattr(found, "__wrapped__", found)
        if found is None:
            return None
    return found if isinstance(found, FunctionType) else None


class Driver:
    """Runs all tests once, then those of every mutant in a forked child."""

    def __init__(self, files: list[Path], store: Path, every: int) -> None:
        self.files, self.store, self.every = files, store, every
        self.calls: dict[str, set[tuple[str, str]]] = {}
        self.took: dict[str, float] = {}
        self.failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.watch(session.items)
        if self.failed:
            raise SystemExit("the tests fail without any mutant")
        # Those that call little are about it.
        ordered = sorted(session.items, key=lambda item: (len(self.calls[item.nodeid]), self.took[item.nodeid]))
        gc.collect()
        gc.freeze()  # what is there stays shared with the children
        known = [json.loads(line) for line in self.store.read_text().splitlines()] if self.store.exists() else []
        killed = {tuple(entry["mutant"]) for entry in known if entry["killed"]}
        for file in self.files:
            self.report(file, list(self.each(file, ordered, killed)))
        return True

    def watch(self, items: list[pytest.Item]) -> None:
        """Run the tests and note which functions of the judged files each calls."""
        seen: set[tuple[str, str]] = set()
        before = [noting(file, seen) for file in self.files]
        for item in items:
            start = time.process_time()
            run(item)
            self.calls[item.nodeid], self.took[item.nodeid] = set(seen), time.process_time() - start
            seen.clear()
        for functions in before:
            for function, code in functions.items():
                function.__code__ = code

    def each(self, file: Path, items: list[pytest.Item], killed: set[tuple[str, ...]]) -> Iterator[tuple[Any, bool]]:
        source = file.read_text()
        module = module_of(file)
        digest = hashlib.sha256(source.encode()).hexdigest()[:12]
        for number, mutant in islice(enumerate(mutants_of(source)), 0, None, self.every):
            key = (str(file.relative_to(ROOT)), digest, str(number))
            if key in killed:
                yield mutant, True
                continue
            _, where, _ = mutant
            inside = function_of(module, where) is not None
            relevant = [i for i in items if self.concerns(i, str(file), where if inside else None)]
            dead = bool(relevant) and self.dies(module, source, number, where, relevant)
            with self.store.open("a") as lines:
                lines.write(json.dumps({"mutant": key, "killed": dead, "what": mutant}) + "\n")
            yield mutant, dead

    def concerns(self, item: pytest.Item, file: str, where: str | None) -> bool:
        """Whether a test calls a function of a file, or any of them, or reads values alone."""
        calls = self.calls[item.nodeid]
        return any(called == file and where in (None, name) for called, name in calls) or not (where or calls)

    def dies(self, module: ModuleType, source: str, number: int, where: str, items: list[pytest.Item]) -> bool:
        child = os.fork()
        if child == 0:
            try:
                os._exit(self.tried(module, source, number, where, items))
            finally:
                os._exit(UNKNOWN)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == UNKNOWN:
            raise RuntimeError(f"mutant {number} of {module.__name__} could not be tried")
        return status != 0

    def tried(self, module: ModuleType, source: str, number: int, where: str, items: list[pytest.Item]) -> int:
        """Whether a mutant is noticed: by failing to be imported, or by a test."""
        gc.disable()
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        tree = mutated(source, number)
        try:
            put_in(module, tree, where)
        except Exception:
            return 1
        spent = 0.0
        for item in items:
            spent += self.took[item.nodeid]
            if spent > MOST_SECONDS or self.failed:
                break
            run(item)
        return int(self.failed)

    def report(self, file: Path, found: list[tuple[Any, bool]]) -> None:
        dead = sum(killed for _, killed in found)
        print(f"{file.relative_to(ROOT)}: {dead} of {len(found)} killed ({dead / max(1, len(found)):.1%})", flush=True)
        for (line, where, what), killed in found:
            if not killed:
                print(f"    survives: line {line}, {where or 'module'}: {what}", flush=True)


def run(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="below src/ajest, e.g. bench/read/cost.py; all that judge by default")
    parser.add_argument("--tests", nargs="*", default=TESTS, help="names of test files, without test_ and .py")
    parser.add_argument("--every", type=int, default=1, help="try every so manieth mutant alone: a quick estimate")
    given = parser.parse_args()
    store = ROOT / "runs" / "mutation.jsonl"
    store.parent.mkdir(exist_ok=True)
    files = [ROOT / "src" / "ajest" / name for name in given.files or JUDGES]
    tests = [str(path) for name in given.tests for path in (ROOT / "tests").rglob(f"test_{name}.py")]
    options = ["-s", "-p", "no:cacheprovider"]
    sys.exit(pytest.main([*options, *tests], plugins=[Driver(files, store, given.every)]))


if __name__ == "__main__":
    main()
