"""How many times as fast an arm is, from benches of several lengths whose curves are known."""

import importlib
import json
from pathlib import Path

import pytest

from forked import FORKED

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SEEDS = range(8)


def write(folder, seconds, factor, metrics):
    """Results of a bench in which the arm is as good as the baseline after `factor` times as long."""
    values = []
    for metric, (sign, power) in metrics.items():
        for arm, times in (("baseline", 1.0), ("arm", factor)):
            by_seed = {str(seed): (seconds * times) ** (sign * power) * (1 + 0.01 * seed) for seed in SEEDS}
            against = {"baseline": {"sign": sign}} if arm == "arm" else {}
            values.append({"budget": "calibrated", "arm": arm, "metric": metric, "guidance_weight": 1.0,
                           "by_seed": by_seed, "against": against})  # fmt: skip
    folder.mkdir()
    facts = {"baseline": "baseline", "amounts": {"calibrated": seconds}, "values": values, "rows": []}
    (folder / "results.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def speedup(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("speedup")


@pytest.mark.parametrize("factor", [1.0, 2.5, 4.0])
def test_the_time_to_the_same_quality_is_found_between_two_lengths(speedup, tmp_path, factor):
    metrics = {"loss": (-1, 1.0), "mandala": (1, 1e-6)}  # the second is straight in log time
    folders = [write(tmp_path / str(k), 2.0**k, factor, metrics) for k in (3, 0, 1, 2)]
    arm, base = (speedup.curves(folders, name) for name in ("arm", "baseline"))
    assert arm["loss", 1.0].seconds.tolist() == [1, 2, 4, 8]
    times, low, high = speedup.speed_up(arm["mandala", 1.0], base["mandala", 1.0], 1)
    assert times == pytest.approx(factor, rel=1e-4)
    assert low <= times <= high
    times, _, _ = speedup.speed_up(arm["loss", 1.0], base["loss", 1.0], -1)  # between two points a chord, no hyperbola
    assert times == pytest.approx(factor, rel=0.1)


def test_an_arm_that_is_never_as_good_and_one_that_is_at_once(speedup, tmp_path):
    metrics = {"loss": (-1, 1.0)}
    for factor, expected in ((0.5, "not as good in this time"), (16.0, "at least 4 (4 to 4)")):
        folders = [str(write(tmp_path / f"{factor}-{k}", 2.0**k, factor, metrics)) for k in range(3)]
        done = FORKED.run([BENCHMARKS / "speedup.py", "arm", *folders])
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].endswith(f"| {expected} |")
