"""Changes the judge, its measuring and its tolerances in one place at a time: a test has to notice.

cosmic-ray makes the mutants. Each is put into a fork of one process that has collected the tests,
and meets those that call its function. The ones that live stand in mutants.toml, each with the
reason why no test could tell it from the code, or none should.
"""

import argparse
import ast
import gc
import importlib
import itertools
import os
import random
import resource
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import pytest
from _pytest.runner import runtestprotocol
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator

HERE = Path(__file__).parent
MODULES = ["judge.judge", "judge.activity", "judge.measure", "judge.tolerance", "judge.findings"]
MODULES += ["judge.comparison", "judge.structure", "trace.evaluation", "judge.history"]
TESTS = ["allowances", "chaos", "compare", "structure", "evaluation", "findings", "measuring"]
TESTS += ["dtypes"]
MAX_CASES = 12  # of one test
AS_IT_IS = "as it is"  # a mutant that has to live, or the tests fail by themselves
CPU_SECONDS = 60  # of one mutant, which may loop for ever
# to the other side of a bound, and to the opposite
COMPARISONS = "Lt_LtE Lt_GtE LtE_Lt LtE_Gt Gt_GtE Gt_LtE GtE_Gt GtE_Lt Eq_NotEq NotEq_Eq Is_IsNot"
BINARY = "Add_Sub Sub_Add Mul_Div Div_Mul FloorDiv_Mul Pow_Mul LShift_RShift BitAnd_BitOr"
OPERATORS = [
    *(f"ReplaceComparisonOperator_{pair}" for pair in f"{COMPARISONS} IsNot_Is".split()),
    *(f"ReplaceBinaryOperator_{pair}" for pair in f"{BINARY} BitOr_BitAnd".split()),
    *(f"ReplaceUnaryOperator_{pair}" for pair in ("USub_UAdd", "Delete_Not", "Delete_Invert")),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("NumberReplacer", "AddNot", "ReplaceContinueWithBreak", "ZeroIterationForLoop"),
]
NAMES = [("min", "max"), ("minimum", "maximum"), ("fmin", "fmax"), ("argmin", "argmax")]
NAMES += [("any", "all"), ("xmin", "xmax"), ("isnan", "isinf")]
SWAPPED = dict(NAMES) | {other: one for one, other in NAMES}


class NameSwapper(Operator):
    """The opposite function."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        if node.type == "name" and node.value in SWAPPED:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        node.value = SWAPPED[node.value]
        return node

    @classmethod
    def examples(cls) -> tuple[()]:
        return ()


class Mutant(NamedTuple):
    """A changed line of a module: where, itself, what it becomes, and the whole changed source.

    function: the one that it is in, of a class with its class; None: outside of all
    """

    module: str
    function: str | None
    line: str
    becomes: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}: {self.line}  ->  {self.becomes}"


def mutants(name: str) -> Iterator[Mutant]:
    """All of a module, none twice."""
    source = (HERE.parents[1] / f"twinstep/{name.replace('.', '/')}.py").read_text()
    before, seen, inside = source.splitlines(), {source}, functions(source)
    yield Mutant(name, None, AS_IT_IS, AS_IT_IS, source)
    for operator in [NameSwapper(), *(get_operator(f"core/{name}")() for name in OPERATORS)]:
        nodes = ast_nodes(get_ast(source))
        for which in range(sum(len(list(operator.mutation_positions(node))) for node in nodes)):
            after = mutate_code(source, operator, which)
            if after not in seen:
                seen.add(after)
                pairs = enumerate(zip(before, after.splitlines(), strict=True), start=1)
                number, (line, becomes) = next((n, pair) for n, pair in pairs if len({*pair}) > 1)
                yield Mutant(name, inside.get(number), line.strip(), becomes.strip(), after)


def functions(source: str) -> dict[int, str]:
    """{line: the name of the function that it is in}, those in functions left out."""
    found: dict[int, str] = {}
    for top in ast.parse(source).body:
        inner, of = (top.body, f"{top.name}.") if isinstance(top, ast.ClassDef) else ([top], "")
        for node in inner:
            if isinstance(node, ast.FunctionDef):
                lines = range(node.lineno, (node.end_lineno or 0) + 1)
                found |= dict.fromkeys(lines, of + node.name)
    return found


def put(old: Any, new: Any, name: str) -> None:
    """Makes a loaded module or class of module `name` what `new` is, for all who hold it."""
    for key, value in vars(new).items():
        known = vars(old).get(key)
        if isinstance(value, property):
            known, value = known.fget, value.fget
        if getattr(value, "__module__", None) == name and isinstance(value, type):
            put(known, value, name)
        elif getattr(value, "__module__", None) == name and isinstance(value, FunctionType):
            if key == "__init__":  # a dataclass's holds its defaults
                setattr(old, key, value)
            else:
                known.__code__, known.__defaults__ = value.__code__, value.__defaults__
        elif isinstance(old, ModuleType) and not key.startswith("__") and not callable(value):
            setattr(old, key, value)


class Run:
    """A pytest plugin: puts each mutant to the tests that pass without it."""

    def __init__(self, names: list[str], jobs: int) -> None:
        self._names, self._jobs = names, jobs
        self.made: list[Mutant] = []
        self.living: list[Mutant] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for name in MODULES:
            importlib.import_module(f"twinstep.{name}")
        calls = {item: self._calls(item) for item in _varied(session.items)}
        gc.freeze()  # a fork then writes to less of it
        running: dict[int, Mutant] = {}
        for mutant in itertools.chain.from_iterable(map(mutants, self._names)):
            self.made.append(mutant)
            if len(self.made) % 50 == 0:
                print(f"{len(self.made)} mutants, {len(self.living)} live", flush=True)
            at = mutant.module, mutant.function
            meets = [item for item in calls if mutant.function is None or at in calls[item]]
            if pid := os.fork():
                running[pid] = mutant
            else:
                _test(mutant, meets)
            if len(running) == self._jobs:
                self._wait(running)
        while running:
            self._wait(running)
        return True

    def _calls(self, item: pytest.Item) -> set[tuple[str, str]]:
        """The functions that a test calls, with their modules."""
        codes = set()
        sys.setprofile(lambda frame, event, _: codes.add(frame.f_code))
        reports = runtestprotocol(item, log=False)
        sys.setprofile(None)
        assert not any(report.failed for report in reports), f"{item.nodeid} fails as it is"
        paths = {str(sys.modules[f"twinstep.{name}"].__file__): name for name in MODULES}
        names = [(paths.get(code.co_filename), code.co_qualname) for code in codes]
        return {(path, name.partition(".<locals>")[0]) for path, name in names if path}

    def _wait(self, running: dict[int, Mutant]) -> None:
        pid, status = os.wait()
        mutant = running.pop(pid)
        if status == 0:
            self.living.append(mutant)
            print(mutant, flush=True)


def _test(mutant: Mutant, items: list[pytest.Item]) -> None:
    """Ends this process, with 0 if no test notices."""
    code = 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        old = sys.modules[f"twinstep.{mutant.module}"]
        new = ModuleType(old.__name__)
        exec(compile(mutant.source, str(old.__file__), "exec"), new.__dict__)
        put(old, new, old.__name__)
        reports = itertools.chain.from_iterable(runtestprotocol(i, log=False) for i in items)
        code = int(any(report.failed for report in reports))
    finally:
        os._exit(code)


def _varied(items: list[pytest.Item]) -> list[pytest.Item]:
    """Some cases of each test, one of each first."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    draw = random.Random(0).sample
    drawn = [draw(those, min(MAX_CASES, len(those))) for those in cases.values()]
    return [item for row in itertools.zip_longest(*drawn) for item in row if item]


def main() -> int:
    """0 where the mutants that live are those of the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", default=MODULES)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    flags = parser.parse_args()
    run = Run(flags.modules, flags.jobs)
    tests = [str(HERE.parent / f"judge/test_{name}.py") for name in TESTS]
    # the properties are searched for minutes, and what conftest.py shares is both frameworks'
    options = ["-m", "not hypothesis", "-o", "addopts=", "-o", "timeout=0", "-qs"]
    options += ["--noconftest", "--import-mode=importlib", "--tb=native"]  # which costs least
    if code := pytest.main([*tests, *options, "-p", "no:cacheprovider"], plugins=[run]):
        return int(code)
    listed = tomllib.loads((HERE / "mutants.toml").read_text())["lives"]
    known = {(one["module"], one["line"], one["becomes"]) for one in listed}
    known |= {(name, AS_IT_IS, AS_IT_IS) for name in flags.modules}
    found = {(one.module, one.line, one.becomes) for one in run.living}
    gone = sorted(one for one in known - found if one[0] in flags.modules)
    new = sorted(found - known)
    print(f"{len(run.made)} mutants, {len(run.living)} live, {len(known & found)} of them listed")
    for says, those in (("lives", new), ("is listed, but does not live", gone)):
        for module, line, becomes in those:
            print(f"{module}: {line}  ->  {becomes}  {says}")
    return int(bool(new or gone))


if __name__ == "__main__":
    sys.exit(main())
