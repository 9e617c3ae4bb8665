"""What a bench says of runs that diverged, and of samples that are not finite."""

from dataclasses import replace

from ajest.bench.read.findings import findings
from made_up import BASE, ahead, at_time


def verdict(results):
    """The sentences that every format prints."""
    return list(findings(results).sentences)


def test_an_arm_that_diverged_takes_nothing_from_what_the_others_show():
    values = {"baseline": BASE, "ajest": ahead(2), "random": [None] * 6}
    results = at_time(values, diverged=[("random", seed) for seed in range(6)])
    assert verdict(results)[0] == "At equal time, `ajest` certainly beats `baseline` on energy distance × 1000."


def test_a_baseline_that_diverged_on_every_seed_leaves_no_verdict_for_good():
    values = {"baseline": [None] * 6, "ajest": BASE, "random": BASE}
    results = at_time(values, diverged=[("baseline", seed) for seed in range(6)])
    assert verdict(results)[0] == "There is no verdict: `baseline` diverged on every seed; lower its rate."


def test_headlines_that_samples_had_no_value_of_are_said_to_be_missing():
    results = at_time({"baseline": BASE, "ajest": ahead(2), "random": ahead(-3)})
    weight, n = results.config.weight, results.config.n_final
    plain, guided = ({m.name: 1.0 for m, at in results.headlines() if at == w} for w in (1.0, weight))
    runs = {
        (arm, seed): replace(
            run,
            lines=[
                {"step": 40, "n": n, "weight": 1.0, "metrics": plain},
                {"step": 40, "n": n, "weight": weight, "metrics": {} if (arm, seed) == ("ajest", 3) else guided},
            ],
        )
        for (arm, seed), run in results.runs.items()
    }
    said = [text for text in replace(results, runs=runs).missing() if "not finite, so" in text]
    labels = " and no ".join(m.label for m, at in results.headlines() if at == weight)
    assert said == [f"ajest, seed 3: its samples guided at {weight:g} are not finite, so it has no {labels}."]
