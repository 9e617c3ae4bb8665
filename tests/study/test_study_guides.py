"""Which weight a study chooses for a guide."""

from ajest.bench.plan.config import run_folder
from ajest.bench.run.evaluation import measured
from ajest.errors import NotFinite
from ajest.storage import checkpoint, jsonl
from ajest.study.guides import Guided, best_weights, evaluate_guided, values
from conftest import small_bench


def test_a_weight_that_fails_on_a_seed_is_not_chosen_by_the_others(tmp_path):
    config = small_bench(seeds=(0, 1))
    metric = next(m for m in config.task.metrics if m.headline in ("guided", "both"))
    good, better = sorted((0.4, 0.9), key=lambda value: value * metric.sign)
    for seed in config.seeds:
        path = run_folder(tmp_path, config.baseline, seed) / "guides.jsonl"
        jsonl.append(path, {"guide": "trained", "weight": 2.0, "metrics": {metric.name: good}})
        jsonl.append(path, {"guide": "trained", "weight": 4.0, "metrics": {metric.name: better} if seed else {}})
    assert best_weights(tmp_path, config)["trained"] == (2.0,)


def test_samples_that_are_nan_leave_an_evaluation_without_metrics():
    said = []

    def judge():
        raise NotFinite("images are NaN")

    assert measured(judge, "own snapshot, weight 4", said.append).metrics == {}
    assert said == ["own snapshot, weight 4: images are NaN"]


def test_a_run_that_diverged_is_guided_by_nobody_and_stops_no_other(tmp_path):
    config = small_bench()
    checkpoint.write_sealed(run_folder(tmp_path, "baseline", 0) / "status.json", {"state": "diverged", "step": 3})
    (said,) = evaluate_guided(Guided("g", tmp_path, config, 0, {}, False, tmp_path, "cpu"), lambda *_: None)
    assert "seed-0 is diverged: nothing of it is guided" in said


def test_what_is_unguided_is_read_whoever_judged_it(tmp_path):
    """Evaluations of images name the networks that judge."""
    config = small_bench(seeds=(0, 1))
    for seed in config.seeds:
        run = run_folder(tmp_path, config.baseline, seed)
        checkpoint.write_sealed(run / "status.json", {"state": "done", "step": 40})
        line = {"step": 40, "width": config.recipe.ema_widths[0], "weight": 1.0, "n": config.n_final}
        for more, value in (({"judges": ["lite0"]}, 3.0 + seed), ({"judges": ["lite0"], "noise": 1}, 9.0)):
            jsonl.append(run / "metrics.jsonl", line | more | {"metrics": {"fd": value}})
        jsonl.append(run / "metrics.jsonl", line | {"step": 20, "metrics": {"fd": 9.0}})
    assert values(tmp_path, config, "trained", 1.0, "fd") == {0: 3.0, 1: 4.0}
