"""The script that says how two arms of a bench differ."""

import importlib
import sys
from pathlib import Path

import pytest

from conftest import small_bench
from made_up import BASE, ahead, made_up


def test_two_arms_are_compared_on_the_headlines_and_corrected_together(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    between = importlib.import_module("between")
    values = {"baseline": BASE, "random": ahead(0.2), "ajest": ahead(0.9)}
    columns = (("energy_distance", 1.0), ("mandala", 3.0))
    results = made_up({(small_bench().final_budget, *column): values for column in columns})
    energy = results.headlines()[0]
    alone = between.between(results, ("ajest", "random"), *energy)
    assert alone.difference == pytest.approx(sum(ahead(0.9)) / 6 - sum(ahead(0.2)) / 6)
    monkeypatch.setattr(between, "read", lambda folder: results)
    monkeypatch.setattr(sys, "argv", ["between.py", "nowhere", "ajest:random"])
    between.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| ajest", "random", "energy distance × 1000"], ["| ajest", "random", "guided mandala"],
    ]  # fmt: skip
    assert "better on 100%" in rows[0]
    assert "better on 0%" in rows[1]  # of which higher is better
    with pytest.raises(SystemExit, match=r"hard or random has no energy_distance .* baseline, ajest, random"):
        between.between(results, ("hard", "random"), *energy)
