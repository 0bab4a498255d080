"""How fast and how good the searchers are, and what `nas` costs to import and to use in bulk.

    python -m experiments.benchmarks.search_speed [--json] [--repeats 30]

Measures on the `spos` space with random scores, all seeds fixed:

- exact search under 475 M FLOPs and over the whole space, front included: the first call in a fresh
  process ("cold") apart from the median of many ("warm"); HiGHS on the same problem; the gap of
  evolution and of random search to the optimum over several seeds;
- cost and score of a million architectures: seconds, and by how much they raise a fresh process's
  peak memory;
- importing every module of `nas` and importing torch alone, each in fresh processes, alternating.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nas.cost import CostTable, FloatTable, flops_table, gather_sum
from nas.search import (
    Budget,
    Evolution,
    RandomSearch,
    SearchResult,
    exact_search,
    optimality_gap,
    run_search,
)
from nas.space import Architecture, SearchSpace, load_space

_ROOT = Path(__file__).parents[2]
_MAX_FLOPS = 475e6
_SEARCH_SEEDS = range(5)
_NUM_PROCESSES = 5  # fresh processes per cold number

_COLD_SEARCH = """
import time
from experiments.benchmarks.search_speed import exact_on_spos, spos_problem
problem = spos_problem(seed=0)
start = time.perf_counter()
exact_on_spos(problem, float({max_cost!r}), 1)
print(time.perf_counter() - start)
"""

_MILLION = """
import time
import numpy as np
from experiments.benchmarks.search_speed import peak_memory_bytes, spos_problem
from nas.cost import gather_sum
problem = spos_problem(seed=0)
space = problem.space
archs_BL = np.full((1_000_000, len(space.layers)), -1, dtype=np.int8)
rng = np.random.default_rng(0)
for layer in space.searched_layers:
    num_choices = len(space.layers[layer].candidates)
    archs_BL[:, layer] = rng.integers(num_choices, size=len(archs_BL), dtype=np.int8)
before_bytes = peak_memory_bytes()
start = time.perf_counter()
flops_B = problem.flops.of_many(archs_BL)
score_B = gather_sum(problem.scores_LN, archs_BL)
seconds = time.perf_counter() - start
after_bytes = peak_memory_bytes()
print(seconds, (after_bytes - before_bytes) / 1e6, after_bytes / 1e6)
"""

_IMPORT_ALL = """
import importlib, pkgutil, time
start = time.perf_counter()
import nas
for module in pkgutil.walk_packages(nas.__path__, "nas."):
    importlib.import_module(module.name)
print(time.perf_counter() - start)
"""

_IMPORT_TORCH = """
import time
start = time.perf_counter()
import torch
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Problem:
    """Eq. 5 on `spos`: random scores, real FLOPs."""

    space: SearchSpace
    scores_LN: FloatTable
    flops: CostTable


@dataclass(frozen=True)
class Row:
    """One measured number; `low` and `high` are the extremes over `num` measurements."""

    what: str
    unit: str
    median: float
    low: float
    high: float
    num: int


def spos_problem(seed: int) -> Problem:
    """The problem with scores drawn uniformly from 0 to 1."""
    space = load_space("spos")
    flops = flops_table(space)
    scores_LN = np.random.default_rng(seed).random(flops.table_LN.shape)
    scores_LN[np.isnan(flops.table_LN)] = np.nan
    return Problem(space, scores_LN, flops)


def exact_on_spos(problem: Problem, max_cost: float, top_k: int) -> SearchResult:
    """The call that is timed."""
    return exact_search(
        problem.scores_LN,
        problem.flops.table_LN,
        max_cost,
        top_k,
        constant=problem.flops.constant,
        name="flops",
    )


def highs_on_spos(problem: Problem) -> float:
    """The optimal score by integer programming (scipy's HiGHS, gap 0), under the same budget."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    exists_LN = ~np.isnan(problem.scores_LN)
    layer_V = np.nonzero(exists_LN)[0]
    one_each = (layer_V == np.unique(layer_V)[:, None]).astype(float)
    flops_V = problem.flops.table_LN[exists_LN] / 1e6
    limit = (_MAX_FLOPS - problem.flops.constant) / 1e6
    solution = milp(
        -problem.scores_LN[exists_LN],
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(flops_V, ub=limit)],
        integrality=np.ones(len(layer_V)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    return -float(solution.fun)


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far.

    On Linux, getrusage's figure starts from the parent's size at the time of the fork and would
    hide what a small child adds; VmHWM counts from the child's own start.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # macOS counts bytes, others KiB


def measure(num_repeats: int) -> list[Row]:
    """All rows, in the order of the module's docstring."""
    return [*_search_rows(num_repeats), *_million_rows(), *_import_rows()]


def _search_rows(num_repeats: int) -> list[Row]:
    problem = spos_problem(seed=0)
    rows = []
    for label, max_cost in (("475 M FLOPs", _MAX_FLOPS), ("whole space", math.inf)):
        cold = [
            1e3 * _fresh(_COLD_SEARCH.format(max_cost=str(max_cost)))[0]
            for _ in range(_NUM_PROCESSES)
        ]
        rows.append(_row(f"exact search, {label}, K=1, cold", "ms", cold))
        for top_k in (1, 10):
            call = functools.partial(exact_on_spos, problem, max_cost, top_k)
            warm = _time_ms(call, num_repeats)
            rows.append(_row(f"exact search, {label}, K={top_k}", "ms", warm))
    rows.append(
        _row("HiGHS, 475 M FLOPs", "ms", _time_ms(lambda: highs_on_spos(problem), num_repeats))
    )

    differences, gaps, chance, seconds = [], [], [], []
    for seed in _SEARCH_SEEDS:
        problem = spos_problem(seed)
        best = exact_on_spos(problem, _MAX_FLOPS, 1).ranked[0].score
        differences.append(abs(best - highs_on_spos(problem)))
        evaluate = _evaluator(problem)
        budgets = [Budget(problem.flops, max_cost=_MAX_FLOPS)]
        start = time.perf_counter()
        evolved = run_search(Evolution(problem.space, budgets, seed=seed), evaluate)
        seconds.append(time.perf_counter() - start)
        drawn = run_search(RandomSearch(problem.space, budgets, seed=seed), evaluate)
        gaps.append(100 * optimality_gap(evolved.ranked[0].score, best))
        chance.append(100 * optimality_gap(drawn.ranked[0].score, best))
    rows.append(_row("exact and HiGHS, score difference", "score", differences))
    rows.append(_row("evolution, 1000 architectures", "s", seconds))
    rows.append(_row("evolution, gap to the optimum", "%", gaps))
    rows.append(_row("random search, gap to the optimum", "%", chance))
    return rows


def _evaluator(problem: Problem) -> Callable[[Sequence[Architecture]], list[float]]:
    def evaluate(archs: Sequence[Architecture]) -> list[float]:
        return [float(score) for score in gather_sum(problem.scores_LN, archs)]

    return evaluate


def _million_rows() -> list[Row]:
    runs = [_fresh(_MILLION) for _ in range(_NUM_PROCESSES)]
    return [
        _row("cost + score of a million architectures", "s", [run[0] for run in runs]),
        _row("  peak memory added by it", "MB", [run[1] for run in runs]),
        _row("  peak memory of the process", "MB", [run[2] for run in runs]),
    ]


def _import_rows() -> list[Row]:
    _fresh(_IMPORT_ALL)  # byte-compiles, and fills the page cache
    pairs = [(_fresh(_IMPORT_TORCH)[0], _fresh(_IMPORT_ALL)[0]) for _ in range(_NUM_PROCESSES)]
    return [
        _row("import torch", "s", [torch_s for torch_s, _ in pairs]),
        _row("import every nas.* module", "s", [nas_s for _, nas_s in pairs]),
        _row("  more than torch alone, pair by pair", "s", [b - a for a, b in pairs]),
    ]


def _fresh(program: str) -> list[float]:
    """The numbers that a program prints when run in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    return [float(word) for word in done.stdout.split()]


def _time_ms(call: Callable[[], object], num_repeats: int) -> list[float]:
    call()  # the first use is another number
    times_ms = []
    for _ in range(num_repeats):
        start = time.perf_counter()
        call()
        times_ms.append(1e3 * (time.perf_counter() - start))
    return times_ms


def _row(what: str, unit: str, values: Sequence[float]) -> Row:
    return Row(what, unit, statistics.median(values), min(values), max(values), len(values))


def main() -> None:
    """Print the table, or one JSON object with `--json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--repeats", type=int, default=30, help="warm measurements per number")
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    rows = measure(options.repeats)
    machine = f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}"
    if options.json:
        print(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=2))
        return
    print(machine)
    print(f"{'':44}{'median':>10}{'min':>10}{'max':>10}{'n':>5}")
    for row in rows:
        numbers = "".join(f"{value:>10.3g}" for value in (row.median, row.low, row.high))
        print(f"{row.what:44}{numbers}{row.num:>5}  {row.unit}")


if __name__ == "__main__":
    main()
