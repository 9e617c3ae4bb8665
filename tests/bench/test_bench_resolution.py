"""Which metrics tell arms apart: signal to noise in closed form, and the table of a pilot."""

import numpy as np
import pytest

from ajest.bench.read.resolution import resolution_table, resolutions, signal_to_noise
from ajest.bench.report.tables import markdown_table
from made_up import made_up


def test_signal_to_noise_is_the_mean_over_its_spread_without_what_chance_adds():
    gaps = np.array([1.0, 2.0, 3.0])  # mean 2, standard deviation 1
    assert signal_to_noise([gaps]) == pytest.approx((4 - 1 / 3) ** 0.5)
    assert signal_to_noise([gaps, -gaps]) == signal_to_noise([gaps])
    assert signal_to_noise([gaps - 2]) == 0


def test_it_is_unbiased_for_normal_differences():
    rng = np.random.default_rng(0)
    draws = rng.normal(0.0, 1.0, (4000, 20))
    squares = [signal_to_noise([gap]) ** 2 for gap in draws]
    assert np.mean(squares) < 0.05  # 0 but for what is cut off below it
    found = signal_to_noise(list(rng.normal(1.5, 1.0, (400, 20))))
    assert found == pytest.approx(1.5, rel=0.1)


def test_a_pilot_ranks_its_metrics():
    results = made_up(
        {("samples", "mandala", 3.0): {"baseline": [1, 2], "random": [3, 4]}}, arms=("baseline", "random")
    )
    step, n = 40, results.config.n_final
    for (arm, seed), run in results.runs.items():
        lead = 1.0 if arm == "random" else 0.0
        metrics = {"loss": seed + lead + 0.01 * seed * lead, "l2": (-1) ** seed * lead + seed}
        line = {"step": step, "n": n, "weight": 1.0, "metrics": metrics}
        # The baseline's headlines are measured again with other noise, which no other arm's are.
        again = line | {"noise": 1, "metrics": {"loss": 100.0 + (-1) ** seed * 50}}
        run.lines.extend([line, again] if arm == "baseline" else [line])
    found = resolutions(results)
    assert [one.metric.name for one in found] == ["loss", "l2"]
    assert found[0].signal_to_noise > 10 > found[1].signal_to_noise
    table = resolution_table(results, found)
    assert len(table) == 2
    assert "| loss |" in markdown_table(table)


def test_what_is_guided_is_the_mean_over_guides():
    results = made_up(
        {("samples", "mandala", 3.0): {"baseline": [1, 2], "random": [3, 4]}}, arms=("baseline", "random")
    )
    for (arm, seed), run in results.runs.items():
        for guide in (1, 2):
            metrics = {"mandala": seed + (arm == "random") * (1 + seed) + 10 * guide}
            line = {"step": 40, "n": results.config.n_final, "weight": 3.0, "guide": guide, "metrics": metrics}
            run.lines.append(line)
    (found,) = (one for one in resolutions(results) if one.metric.name == "mandala")
    assert found.baseline == pytest.approx(sum(results.config.seeds) / len(results.config.seeds) + 15)
