"""A bench's numbers as rows and as JSON, from results that are made up."""

from dataclasses import replace

import pytest

from ajest.bench.read.findings import findings
from ajest.bench.report.export import as_csv, as_json, rows
from made_up import BASE, COSTS, LEDGER, ahead, at_time, made_up


def test_flat_rows_hold_every_number():
    results = at_time({"baseline": BASE, "ajest": [*ahead(2)[:5], None], "random": ahead(1)})
    base, ajest, random = rows(results)
    assert (base["seeds"], base["mean"], base["amount"], base["n"]) == (6, pytest.approx(62 / 6), 4096.0, 512)
    assert (base["vs_baseline_seeds"], base["p_holm"], base["outcome"]) == (None, None, None)
    assert (ajest["seeds"], ajest["vs_baseline_seeds"], ajest["outcome"]) == (5, 5, "undecided")
    assert (random["outcome"], random["vs_baseline_difference"]) == ("better", pytest.approx(-1))
    assert random["sd"] == pytest.approx(results.cell("calibrated", "random", "energy_distance", 1.0).sd)
    against = results.cell("calibrated", "random", "energy_distance", 1.0).against["baseline"]
    assert [random[f"vs_baseline_{n}"] for n in ("low", "high", "interval", "better", "p")] == [
        against.low, against.high, "bootstrap", 1.0, against.p
    ]  # fmt: skip
    assert random["p_holm"] == against.corrected
    heads, first, *_ = as_csv(findings(results)).splitlines()
    assert heads.split(",")[:6] == ["budget", "amount", "arm", "metric", "guidance_weight", "n"]
    assert first.startswith("calibrated,4096.0,baseline,energy_distance,1.0,512,6,10.333")
    assert as_csv(findings(made_up({}))) == ""
    one = at_time({"baseline": BASE[:1], "ajest": ahead(2, 1)}, seeds=1)
    assert [row["sd"] for row in rows(one)] == [None, None]
    whole = as_json(findings(results))
    assert list(whole) == [
        "answer",
        "verdict",
        "notes",
        "recommended",
        "missing",
        "baseline",
        "amounts",
        "costs",
        "real_data_reference",
        "by_level",
        "rows",
        "values",
        "ledgers",
    ]
    assert (whole["baseline"], whole["amounts"], whole["costs"], whole["real_data_reference"]) == (
        "baseline", {"calibrated": 4096.0}, COSTS, {}
    )  # fmt: skip
    assert (whole["missing"], whole["rows"]) == (results.missing(), rows(results))
    assert [whole["answer"], *whole["verdict"], *whole["notes"]] == list(findings(results).sentences)
    assert list(whole["values"][1]) == [
        "budget", "arm", "metric", "guidance_weight", "by_seed", "by_guide", "against"
    ]  # fmt: skip
    assert [whole["values"][1][k] for k in ("budget", "arm", "metric", "guidance_weight")] == [
        "calibrated", "ajest", "energy_distance", 1.0
    ]  # fmt: skip
    real = as_json(findings(replace(results, real_data_reference={256: {"loss": 0.5}})))["real_data_reference"]
    assert real == {"256": {"loss": 0.5}}
    assert whole["values"][1]["by_seed"] == {s: ahead(2)[s] for s in range(5)}
    assert whole["values"][1]["against"]["baseline"]["missing"] == 1
    assert whole["values"][0]["against"] == {}
    assert len(whole["ledgers"]) == 1 + 3 * 6
    assert whole["ledgers"][1] == {"arm": "baseline", "seed": 0, "state": "done", **LEDGER}
