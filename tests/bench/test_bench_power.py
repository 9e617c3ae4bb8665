"""The smallest difference that a bench finds, against simulated benches."""

import numpy as np
import pytest

from ajest.bench.read.findings import findings
from ajest.bench.read.power import POWER, detectable, plan_table, power_of, power_table, seeds_for, smallest_effect
from ajest.bench.read.statistics import ALPHA, paired_p
from ajest.bench.report.markdown import as_markdown
from ajest.bench.run.bench import run_bench
from ajest.selection.catalogue import arms_named
from conftest import Here, small_bench
from made_up import BASE, LEDGER, ahead, made_up


@pytest.fixture(scope="module")
def bench_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pilot")
    arms = arms_named(("baseline", "random"))
    run_bench(folder, small_bench(arms=arms, iterations=32, guide_iterations=4, n_final=200, n_curve=200), Here())
    return folder


@pytest.mark.parametrize(("seeds", "tests"), [(5, 1), (5, 4), (20, 6)])
def test_a_difference_of_the_smallest_size_is_found_in_four_of_five_simulated_benches(seeds, tests):
    rng, effect = np.random.default_rng(0), smallest_effect(seeds, tests)
    found = np.mean([paired_p(rng.normal(effect, 1, seeds)) < ALPHA / tests for _ in range(2000)])
    assert found == pytest.approx(POWER, abs=0.025)  # 2.8 standard errors


@pytest.mark.parametrize("tests", [1, 6])
def test_without_a_difference_power_is_the_level_and_it_grows_with_seeds(tests):
    assert power_of(0, 8, tests) == pytest.approx(ALPHA / tests, rel=1e-2)
    powers = [power_of(0.7, n, tests) for n in (4, 8, 16, 32)]
    assert powers == sorted(powers)
    assert power_of(-0.7, 8, tests) == pytest.approx(power_of(0.7, 8, tests))


def test_the_seeds_for_an_effect_are_the_least_that_find_it():
    for effect in (0.3, 0.8, 1.5):
        n = seeds_for(effect, 4)
        assert power_of(effect, n, 4) >= POWER > power_of(effect, n - 1, 4)
    assert seeds_for(50) == 5
    assert seeds_for(0) is None
    assert seeds_for(1e-4) is None


def test_a_report_says_what_it_could_have_shown():
    at = {("calibrated", "energy_distance", 1.0): {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)}}
    results = made_up(at)
    found = detectable(results, ["calibrated"])
    assert [one.arm for one in found] == ["ajest", "random"]
    assert found[0].tests == 2 * len(results.headlines())
    assert found[0].seeds == 6
    gaps = np.array(ahead(2)) - np.array(BASE)
    assert found[0].sd == pytest.approx(gaps.std(ddof=1))
    assert found[0].smallest == pytest.approx(smallest_effect(6, found[0].tests) * gaps.std(ddof=1))
    said = as_markdown(findings(results))
    assert "The smallest differences that this bench could have shown" in said


def test_a_difference_that_no_bench_can_show_is_not_given_as_a_number():
    """Of few seeds nothing is certain, and of a share nobody gains more than there is."""
    wide = [b + g / 5 for b, g in zip([0.6] * 6, (-3, 2, -3, 2, -1, 3), strict=True)]

    def smallest(metric, weight, base, arm, seeds=6):
        at = {("calibrated", metric, weight): {"baseline": base[:seeds], "ajest": arm[:seeds]}}
        (one,) = detectable(made_up(at, ("baseline", "ajest"), seeds=seeds), ["calibrated"])
        return one, power_table([one]).rows[0][4].value

    one, said = smallest("mandala", 3.0, [0.6] * 6, wide)
    assert one.baseline + one.smallest > 1
    assert said == "no gain with so few seeds"
    one, said = smallest("energy_distance", 1.0, [0.06] * 6, wide)  # of which lower is better, down to 0
    assert one.smallest > one.baseline
    assert said == "no gain with so few seeds"
    one, said = smallest("mandala", 3.0, [0.6] * 6, [0.6 + (v - 0.6) / 50 for v in wide])
    assert float(said.split()[0]) == pytest.approx(one.smallest, rel=0.1)
    assert smallest("mandala", 3.0, [0.6] * 6, wide, seeds=4)[1] == "none with fewer than 5 seeds"


def test_one_seed_or_equal_differences_have_none():
    at = {("calibrated", "energy_distance", 1.0): {"baseline": BASE, "ajest": [b - 1 for b in BASE], "random": BASE}}
    assert detectable(made_up(at), ["calibrated"]) == []


@pytest.mark.parametrize("guides", [1, 3])
def test_that_the_chance_of_guides_is_left_out_is_said_where_there_are_several(guides):
    at = {("calibrated", "mandala", 3.0): {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)}}
    results = made_up(at, guides=guides)
    found = detectable(results, ["calibrated"])
    for table in (power_table(found), plan_table(results, found, 0.05)):
        assert any("chance of the guides" in note for note in table.notes) == (guides > 1)


def test_a_plan_counts_seeds_and_hours():
    at = {("calibrated", "energy_distance", 1.0): {"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)}}
    results = made_up(at)
    found = detectable(results, ["calibrated"])
    for share in (0.02, 0.1):
        rows = [[cell.value for cell in row] for row in plan_table(results, found, share).rows]
        for one, row in zip(found, rows, strict=True):
            seeds = one.seeds_for(share)
            assert (row[0], row[2]) == (one.arm, f"{seeds:,}")
            a_run = sum(LEDGER["seconds"].values()) + LEDGER["warmup_seconds"]
            assert float(row[3]) == pytest.approx(seeds * 3 * a_run / 3600, rel=1e-2)
    assert [row[2].value for row in plan_table(results, found, 1e-7).rows] == ["more than 10,000"] * 2


def test_the_command_plans_from_a_pilot_and_refuses_what_is_none(bench_folder, command):
    done = command("plan", str(bench_folder), "--detect", "10%")
    assert done.code == 0, done.err
    assert "Seeds that find a difference of 10 % of the baseline" in done.out
    for detect in ("0", "-3%", "much"):
        refused = command("plan", str(bench_folder), "--detect", detect)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "give a difference in per cent, such as 5%" in refused.err
