"""How two arms of a bench differ on its headlines, where its runs end.

    python benchmarks/between.py runs/parts random+muon:random random+muon:muon

Each is the mean difference over the seeds that both have, with its 95 % interval, and p. That is corrected by Holm over
all pairs and headlines that are asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ajest.bench.read.folder import read
from ajest.bench.read.results import Results
from ajest.bench.read.statistics import Comparison, corrected, paired
from ajest.bench.read.wording import gap, metric_name
from ajest.tasks.base import Metric


def between(results: Results, pair: tuple[str, str], metric: Metric, weight: float) -> Comparison:
    """The first arm against the second on one metric where the runs end."""
    one, other = (results.cell(results.config.final_budget, arm, metric.name, weight) for arm in pair)
    if one is None or other is None:
        raise SystemExit(f"{' or '.join(pair)} has no {metric.name} at the end of this bench, whose arms are "
                         f"{', '.join(results.arms)}")  # fmt: skip
    found = paired(one.measured, other.measured, metric.sign, results.config.seeds, planned_looks=results.config.looks)
    if found is None:
        raise SystemExit(f"{' and '.join(pair)} share no seed")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path)
    parser.add_argument("pairs", nargs="+", metavar="ARM:OTHER")
    asked = parser.parse_args()
    results = read(asked.bench)
    pairs = [(one, other) for one, _, other in (pair.partition(":") for pair in asked.pairs)]
    tests = [(pair, *headline) for pair in pairs for headline in results.headlines()]
    found = corrected([between(results, *test) for test in tests])
    print("| arm | minus | metric | difference |\n| --- | --- | --- | --- |")
    for ((one, other), metric, weight), comparison in zip(tests, found, strict=True):
        cell = gap(comparison, metric, tested=True)
        print(f"| {one} | {other} | {metric_name(metric, weight)} | {cell.value} ({cell.detail}) |")


if __name__ == "__main__":
    main()
