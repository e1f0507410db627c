"""Changes a module in one place at a time, and tells which changes no test notices: ``make mutants``."""

from __future__ import annotations

import argparse
import ast
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.environment import isolate

isolate(os.environ)
sys.dont_write_bytecode = True
for each in ("airflow.sdk", "airflow.triggers.base", "croniter", "requests"):
    import_module(each)  # forks find them imported

# That a test fails is enough here; a small example that shows it takes minutes to find.
settings.register_profile(
    "unshrunk", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)

#: Nobody reads what is printed, so nothing is loaded or rewritten for it.
PYTEST_OPTIONS = [
    *("-x", "-q", "--assert=plain", "--hypothesis-profile=unshrunk"),
    *(f"-pno:{each}" for each in ("anyio", "cacheprovider", "xdist")),
]
ROOT = Path(__file__).parent.parent
Change = tuple[str, str]  # in words, and the source that has it
#: Tests of a module, beside those in the file of its name.
TESTS = {
    "protocol/endpoints": ["tests/protocol/test_paging.py", "tests/test_hooks.py"],
    "protocol/errors": ["tests/protocol/test_messages.py"],
    "protocol/paging": ["tests/waiting/test_resume.py", "tests/waiting/test_snapshot.py"],
    "waiting/poller": ["tests/waiting/test_snapshot.py"],
    "waiting/snapshot": ["tests/waiting/test_resume.py"],
    "waiting/waiter": ["tests/waiting/test_poller.py", "tests/waiting/test_snapshot.py"],
}
#: What those do not notice, these may.
MORE_TESTS = [
    *("tests/protocol", "tests/events/test_cursor.py", "tests/test_assets.py"),
    *(f"tests/waiting/test_{each}.py" for each in ("outcome", "progress", "resume", "selection", "snapshot")),
]
_COMPARISONS = {
    **{ast.Lt: [ast.LtE, ast.GtE], ast.LtE: [ast.Lt, ast.Gt], ast.Gt: [ast.GtE, ast.LtE]},
    **{ast.GtE: [ast.Gt, ast.Lt], ast.Eq: [ast.NotEq], ast.NotEq: [ast.Eq], ast.In: [ast.NotIn]},
    **{ast.NotIn: [ast.In], ast.Is: [ast.IsNot], ast.IsNot: [ast.Is]},
}
_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add}


def _replacements(node: ast.AST) -> Iterator[ast.AST]:  # noqa: PLR0912 (a table)
    """What may stand in the place of a node."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                for other in _COMPARISONS[type(operator)]:
                    ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                    yield ast.Compare(node.left, ops, node.comparators)
        case ast.BoolOp():
            other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield from (ast.BoolOp(other, node.values), *node.values)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.BinOp() if type(node.op) in _ARITHMETIC and not isinstance(node.left, ast.Constant):
            yield ast.BinOp(node.left, _ARITHMETIC[type(node.op)](), node.right)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        case ast.Name(id=name, ctx=ast.Load()) if name in _SWAPPED:
            yield ast.Name(_SWAPPED[name], ast.Load())
        case ast.IfExp():
            yield from (node.body, node.orelse)
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Assign(targets=[ast.Attribute()]) | ast.AugAssign():
            yield ast.Pass()
        case ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()


def mutants(source: str) -> Iterator[Change]:
    """Every change of a source."""
    tree = ast.parse(source)
    for parent in list(_code(tree)):
        for name, field in ast.iter_fields(parent):
            for place, node in enumerate(nodes := field if isinstance(field, list) else [field]):
                for other in _replacements(node) if isinstance(node, ast.AST) else ():
                    changed = [*nodes[:place], other, *nodes[place + 1 :]]
                    setattr(parent, name, changed if nodes is field else other)
                    mutated = ast.unparse(ast.fix_missing_locations(tree))
                    setattr(parent, name, field)
                    words = f"{ast.unparse(node)[:70]!r} -> {ast.unparse(other)[:70]!r}"
                    yield f"line {node.lineno}: {words}", mutated


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one, but for annotations and decorators."""
    yield node
    for name, field in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for each in field if isinstance(field, list) else [field]:
                yield from _code(each) if isinstance(each, ast.AST) else ()


def _own_tests(module: Path) -> list[str]:
    named = f"tests/{module.parent.name}/test_{module.stem}.py"
    more = TESTS.get(f"{module.parent.name}/{module.stem}", [])
    return [named, *more] if (ROOT / named).exists() else more


def _start(folder: Path, tests: list[str], patience: int) -> int:
    """Start the tests in a fork, in which the big imports are done; return its process id."""
    if pid := os.fork():
        return pid
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    tempfile.tempdir = str(folder.parent)  # what is left there goes with the folder
    for name in [each for each in sys.modules if each.startswith(("tests", "airflow_provider_exa"))]:
        del sys.modules[name]
    os.dup2(os.dup2(os.open(os.devnull, os.O_WRONLY), 1), 2)
    signal.alarm(patience)  # which ends it, and counts as noticed
    gc.freeze()  # what has been imported need not be searched for garbage
    os._exit(pytest.main([*PYTEST_OPTIONS, *tests]))


def survivors(changes: list[Change], module: Path, tests: list[str], folders: list[Path]) -> list[Change]:
    """The changes that the tests do not notice."""
    began, found = time.monotonic(), []
    shutil.copy(ROOT / module, folders[0] / module)
    if os.waitpid(_start(folders[0], tests, 600), 0)[1]:
        sys.exit(f"These tests fail on the module as it is: {' '.join(tests)}")
    patience = 10 + int(5 * (time.monotonic() - began))
    todo, free, running = list(changes), list(folders), dict[int, tuple[Path, Change]]()
    while todo or running:
        while todo and free:
            folder, change = free.pop(), todo.pop(0)
            (folder / module).write_text(change[1])
            running[_start(folder, tests, patience)] = folder, change
        pid, status = os.wait()
        folder, change = running.pop(pid)
        free.append(folder)
        found += [] if status else [change]
    return sorted(found, key=changes.index)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("module", type=Path)
    parser.add_argument("--sample", type=int, default=10_000, help="so many of the changes, at random")
    options = parser.parse_args()
    module = options.module.resolve().relative_to(ROOT)
    changes = list(mutants((ROOT / module).read_text()))
    changes = random.Random(1).sample(changes, min(options.sample, len(changes)))  # noqa: S311 (no secret)
    with tempfile.TemporaryDirectory() as home:
        folders = [Path(home, str(number)) for number in range(2)]  # so many are tested at once
        for folder in folders:
            shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        own = _own_tests(module)
        more = [*(each for each in MORE_TESTS if each not in own), *(f"--ignore={each}" for each in own)]
        left = survivors(changes, module, own, folders) if own else changes
        left = survivors(left, module, more, folders) if left else left
    print(*(f"not noticed: {words}" for words, _ in left), sep="\n")
    print(f"{module}: {len(changes) - len(left)} of {len(changes)} caught")


if __name__ == "__main__":
    main()
