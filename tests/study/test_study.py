"""Studies: shared draws, stages, finalists, pairwise tests, guides."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ajest import Batch, per_example_loss
from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.read import recommendation
from ajest.bench.read.folder import read, read_bench
from ajest.bench.read.recommendation import Recommendation, as_json
from ajest.bench.read.score_reliability import score_reliability
from ajest.bench.run import calibration
from ajest.errors import UserError
from ajest.runtime.seeding import generator
from ajest.selection.catalogue import arms_named
from ajest.selection.features import score_with_features
from ajest.selection.strata import LEAST_IN_STRATUM
from ajest.storage import checkpoint, jsonl
from ajest.storage.config import from_json
from ajest.study.guides import WEIGHTS
from ajest.study.page import write_page
from ajest.study.plan import Grid, Study
from ajest.study.presets import IMAGES, TREE, images_full, images_quick
from ajest.study.results import finalists, results_of
from ajest.study.run import run_stage
from ajest.tasks.images.architecture import SIZES
from ajest.training import run as runs
from ajest.training.networks import load_network
from ajest.training.recipe import LearningRate
from ajest.training.run import execute, execution
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from ajest.training.shared_draws import SharedDraws, in_turns
from conftest import Here, small_bench, small_images, small_recipe, small_task, tiny_images
from forked import FORKED


def config(arm, iterations):
    return RunConfig(small_task(), "learner", small_recipe(), arms_named((arm,))[0], 3, iterations)


def test_a_verdict_cites_what_the_study_of_its_task_recommends(monkeypatch):
    small = small_bench()
    known = [
        Recommendation(
            "calibrated", "random", 20, small.iterations, small.recipe.super_batch, "it is cheap", ", in turns"
        ),
        Recommendation("flops", "hard", 20, small.iterations, small.recipe.super_batch, "so"),
    ]
    stored = from_json(dict[str, tuple[Recommendation, ...]], as_json("tree", known), "here")
    assert stored == {"tree": tuple(known)}
    monkeypatch.setattr(recommendation, "recommendations", lambda task: stored.get(task, ()))
    said = recommendation.cited(small_bench())  # which compares at equal time, and not at equal operations
    assert said == [
        "By the study in docs/study-tree.md, train with `random` at equal time.",
        "The reason: it is cheap.",
        "This rests on 20 seeds.",
        f"There the baseline took {small.iterations} steps of {small.recipe.super_batch} examples, in turns; at "
        "another length the answer may differ.",
    ]
    assert recommendation.cited(replace(small_bench(), task=small_images())) == []
    stored = {"tree": (replace(known[0], source="results-tree-full.md"),)}
    assert recommendation.cited(small_bench())[0] == "By docs/results-tree-full.md, train with `random` at equal time."


def test_a_bench_of_another_setting_says_so_and_one_far_off_cites_nothing(monkeypatch):
    config = small_bench(iterations=64)
    there = Recommendation("calibrated", "random", 20, 64, config.recipe.super_batch, "so")
    for steps, batch, said in ((1, 1, 4), (2, 1, 5), (1, 4, 5), (5, 1, 0), (1, 5, 0), (1, 1 / 8, 0)):
        found = replace(there, steps=64 * steps, super_batch=int(there.super_batch * batch))
        monkeypatch.setattr(recommendation, "recommendations", lambda task, found=found: (found,))
        sentences = recommendation.cited(config)
        assert len(sentences) == said
        here = f"Here it takes 64 steps of {config.recipe.super_batch:,} examples."
        assert (here in sentences) == (said == 5)


def test_what_comes_with_the_package_recommends_at_budgets_that_there_are():
    for task in ("tree", "images", "vectors"):
        found = recommendation.recommendations(task)
        assert {r.budget for r in found} <= set(BUDGETS)
        docs = Path(__file__).parents[2] / "docs"
        assert all((docs / (r.source or f"study-{task}.md")).exists() for r in found)


def test_looking_up_is_timed_with_something_remembered(tmp_path, monkeypatch):
    trainers = []
    monkeypatch.setattr(
        calibration, "make_trainer", lambda *a, **k: trainers.append(runs.make_trainer(*a, **k)) or trainers[-1]
    )
    config = small_bench(arms=arms_named(("recall", "stale")), calibration_rounds=1)
    costs = calibration.measure(tmp_path, config)
    recalls = {kind.label for arm in config.arms for kind in arm.kinds() if kind.mode == "recall"}
    assert len(recalls & costs.keys()) == 2
    memories = [t.selector.memory.losses["learner"] for t in trainers if t.selector.memory.losses]
    assert len(memories) == 2
    assert all(len(m.examples) for m in memories)


def test_runs_in_turns_end_as_runs_one_by_one(tmp_path):
    """Bit for bit, whatever their lengths: a shared draw is the same draw."""
    plans = {"baseline": 40, "hard": 64, "random": 70, "stale": 33, "hard-draws": 20, "recall": 50}
    for name, steps in plans.items():
        execute(tmp_path / "alone" / name, config(name, steps), Schedule(checkpoint_every=16))

    def together():
        source = SharedDraws(small_task().source("cpu"))
        return [
            execution(tmp_path / "together" / name, config(name, steps), Schedule(checkpoint_every=16), source=source)
            for name, steps in plans.items()
        ]

    class Cut(Exception):
        pass

    def cut(behind, ahead, left):
        if behind == 37:
            raise Cut

    runs = together()
    with pytest.raises(Cut):
        in_turns(runs, cut)
    seen = []
    in_turns(together(), lambda *state: seen.append(state))
    assert seen[0][0] == 32  # from the last checkpoint of those that were not done
    assert seen[0][2] == 4
    for name in plans:
        alone, together = (load_network(tmp_path / how / name)[0].state_dict() for how in ("alone", "together"))
        for key, value in alone.items():
            assert torch.equal(value, together[key]), (name, key)


def test_runs_in_turns_that_are_told_to_end_all_save_where_they_stand(tmp_path, signals):
    source = SharedDraws(small_task().source("cpu"))
    folders = [tmp_path / str(i) for i in range(3)]
    runs = [execution(folder, config("random", 40), Schedule(), source=source) for folder in folders]
    with pytest.raises(KeyboardInterrupt):
        in_turns(runs, lambda behind, *_: signals.raise_signal(signal.SIGTERM) if behind == 5 else None)
    ends = [checkpoint.latest(folder, "checkpoint", pytest.fail) for folder in folders]
    assert sorted(stored.facts["step"] for stored in ends) == [6, 6, 7]  # the first of them noticed at its next step


def test_a_run_whose_rate_and_temperature_follow_its_share_is_cut_off_and_ends_with_the_same_bits(tmp_path):
    class Cut(Exception):
        pass

    recipe = small_recipe(learning_rate=LearningRate(decay=0.25, clock="share"))
    for arm in (arms_named(("hard-cooling",))[0], arms_named(("hard-early",))[0]):
        run = RunConfig(small_task(), "learner", recipe, arm, 3, 1000)
        costs = {kind.label: {"update": 1.0 + i} for i, kind in enumerate(arm.kinds())}
        schedule = Schedule(costs=costs, checkpoint_every=8, end=("calibrated", 30.0))

        def cut(step, _):
            if step == 13:
                raise Cut

        with pytest.raises(Cut):
            execute(tmp_path / arm.name / "cut", run, schedule, progress=cut)
        for name in ("cut", "whole"):
            assert execute(tmp_path / arm.name / name, run, schedule) == "done"
        cut_off, whole = (load_network(tmp_path / arm.name / n)[0].state_dict() for n in ("cut", "whole"))
        assert all(torch.equal(v, cut_off[k]) for k, v in whole.items())


def test_shared_draws_draw_once():
    source = small_task().source("cpu")
    calls = []

    class Counting:
        def draw(self, *args):
            calls.append("draw")
            return source.draw(*args)

        def complete(self, batch):
            calls.append("complete")
            return source.complete(batch)

    shared = SharedDraws(Counting())
    for _ in range(3):
        batch = shared.draw(32, generator(0, "draw", 0))
        whole = shared.complete(batch)
    assert calls == ["draw", "complete"]
    shared.complete(batch[:8])  # a part is no draw: it is completed by itself
    shared.draw(32, generator(0, "draw", 0), generator(0, "noise"))
    assert calls == ["draw", "complete", "complete", "draw"]
    assert torch.equal(whole.target, source.complete(source.draw(32, generator(0, "draw", 0))).target)


def test_the_sketch_of_the_tree_is_made_of_the_last_layers_gradient():
    """f_m = sum_kj left_km G_kj right_jm with G the autograd gradient for the weights that act."""
    task = small_task()
    network = task.network("learner", 0).eval()
    with torch.no_grad():
        network.gain.fill_(0.7)
    source = task.source("cpu")
    batch = source.complete(source.draw(6, generator(0, "draw", 0)))
    _, sketch = network.sketched(batch.x, batch.sigma, None, batch.target, batch.weight)
    last = getattr(network, f"layer{network.depth - 1}")
    acting = last.used().detach().requires_grad_(True)
    last.used = lambda: acting
    signs = torch.Generator().manual_seed(0)
    h = acting.shape[0]
    left, right = (torch.randint(2, (h, 64), generator=signs) * 2.0 - 1 for _ in range(2))
    for i in range(6):
        one = batch[i : i + 1]
        loss = per_example_loss(network(one.x, one.sigma), one).sum()
        (gradient,) = torch.autograd.grad(loss, acting)
        expected = torch.einsum("km,kj,jm->m", left, gradient, right) / 8
        ratio = sketch[i] @ expected / (expected @ expected)
        torch.testing.assert_close(sketch[i] / ratio, expected, rtol=2e-3, atol=2e-4 * expected.abs().max().item())
        assert ratio.item() == pytest.approx(0.596, rel=1e-3)  # the common factor: SILU_GAIN


def test_the_sketch_of_images_is_the_gradient_of_the_last_convolutions_centre():
    network = replace(SIZES["nano"], patch=1).denoiser(16, 0, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        network.unet.out_gain.fill_(0.5)
    g = torch.Generator().manual_seed(1)
    x0 = torch.randn(3, 3, 16, 16, generator=g)
    sigma = torch.tensor([0.2, 1.0, 3.0])
    x = x0 + sigma[:, None, None, None] * torch.randn(x0.shape, generator=g)
    batch = Batch(x=x, sigma=sigma, weight=torch.tensor([1.0, 2.0, 3.0]), id=torch.arange(3), target=x0)
    losses, sketch = score_with_features(network, batch, "gradient", micro_batch=2)
    torch.testing.assert_close(losses, per_example_loss(network(x, sigma), batch).detach())
    extra = torch.zeros(3, sketch.shape[1] // 3, requires_grad=True)

    def add(module, inputs, output):
        return output + torch.einsum("ck,nkhw->nchw", extra, inputs[0])

    hook = network.unet.out_conv.register_forward_hook(add)
    for i in range(3):
        one = batch[i : i + 1]
        loss = per_example_loss(network(one.x, one.sigma), one).sum()
        (gradient,) = torch.autograd.grad(loss, extra)
        # the mean over 3 x 16 x 16 elements, and the square's 2
        torch.testing.assert_close(sketch[i] * 2 / 768, gradient.flatten(), rtol=1e-3, atol=1e-6)
    hook.remove()


def test_grids_name_their_variants():
    grid = Grid("hard", ("keep", (0.1, 0.2)), ("temperature", (0.5, 1.0)))
    names = [a.name for a in grid.variants()]
    assert names == ["hard-temperature-0.5-keep-0.1", "hard-temperature-0.5", "hard-keep-0.1", "hard"]
    assert (grid.variants()[0].keep, grid.variants()[0].temperature) == (0.1, 0.5)
    other = Grid("hard", ("strata", (4, 16)), ("temperature", (0.5, 1.0)))
    assert other.variants()[1] == grid.variants()[1]  # a grid's own dials and those it shares with another
    full = TREE["full"]()
    assert full.known(("recall", "hard-temperature-0.5-keep-0.1"))[1].keep == 0.1
    with pytest.raises(UserError, match="must not be those"):
        replace(full, final_seeds=(1000,))
    assert len(full.rules) >= 30
    assert len(full.final_seeds) >= 20


def test_rules_of_an_image_study_fit_its_super_batch():
    for preset in IMAGES.values():
        plan = preset(small_images())
        for stage in ("screening", "dials", "final", "guides"):
            for bench in plan.stage(stage).values():
                for arm in bench.arms:
                    assert 1 <= arm.kept(bench.recipe.super_batch) <= bench.recipe.super_batch
                    assert (arm.effective("strata") or 1) * LEAST_IN_STRATUM <= max(8, bench.recipe.super_batch)
    with pytest.raises(UserError, match="hard-running"):
        arms_named(("hard",))[0].kept(20)


#: Of the pages that it writes after each stage the figures of the last alone are painted, if any.
SMALL = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from forked import one_dot
from ajest.bench.report import drawing, figures
from ajest.selection.catalogue import arms_named
from ajest.study import page, presets
from ajest.study.plan import Study
quick = presets.tree_quick()
task = replace(quick.task, hidden=16, guide_hidden=8, layers=2, sampler_steps=8)
rules = arms_named(("baseline", "random", "early-ajest", "ajest", "hard", "learnable-strong", "proxy"))
small = replace(quick, task=task, iterations=64, rules=rules, guide_iterations=16, strong_iterations=16, n=400,
                recipe=replace(quick.recipe, super_batch=256), screening_ends=("time",), final_seeds=(0, 1), guides=2)
presets.TREE["quick"] = lambda: small
plain, written, out = Study.bench, page.write_page, sys.argv[1]
Study.bench = lambda *asked, **more: replace(plain(*asked, **more), calibration_rounds=4)
painted, figures.rasterised = figures.rasterised, one_dot
drawing.rasterised = one_dot
def write_page(root, *asked):
    if (root / "guides").exists():
        figures.rasterised = drawing.rasterised = painted
    return written(root, *asked)
page.write_page = write_page
from ajest.cli.main import main
if __name__ == "__main__":
    sys.argv[1:] = ["study", "tree", "--out", out, "--workers", "2"]
    main()
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A whole study in small, by the command."""
    out = tmp_path_factory.mktemp("study")
    script = out / "small.py"
    script.write_text(SMALL.format(tests=str(Path(__file__).parents[1])))
    run = FORKED.run([script, out / "s"], painted=True)
    assert run.returncode == 0, run.stderr
    return out / "s", run.stdout


def test_an_image_study_runs_from_its_screening_to_its_final(tmp_path, monkeypatch, small_judge):
    plain = Study.bench
    monkeypatch.setattr(Study, "bench", lambda *asked, **more: replace(plain(*asked, **more), calibration_rounds=2))
    full = images_quick(tiny_images())
    recipe = replace(full.recipe, super_batch=20)
    rules = (*full.rules, *(a for a in images_full(tiny_images()).rules if a.name == "half-resolution"))
    plan = replace(full, recipe=recipe, rules=rules, iterations=40, guide_iterations=4, n=200, final_ends=("samples",))
    plan = replace(plan, screening_ends=("samples",), screening_seeds=(1000,), final_seeds=(0,))
    run_stage(tmp_path, plan, "screening", plan.stage("screening"), Here(), "cpu")
    screened = results_of(tmp_path, plan, "screening")
    assert {run.state for results in screened.values() for run in results.runs.values()} == {"done"}
    trusted = score_reliability(screened["samples"])
    assert 0 < trusted["half-resolution"]["agreement"].mean < 1
    chosen = finalists(screened, {}, 1)
    assert len(chosen) == 1
    run_stage(tmp_path, plan, "final", plan.stage("final", chosen), Here(), "cpu")
    write_page(tmp_path, plan, "the command")
    page = (tmp_path / "study.md").read_text()
    assert "the command" in page
    assert f"| {chosen[0].name} |" in page
    unfinished = tmp_path / "screening" / "samples" / "arms" / "hard" / "seed-1000" / "status.json"
    unfinished.unlink()
    with pytest.raises(UserError, match="1 unfinished"):
        finalists(results_of(tmp_path, plan, "screening"), {}, 1)


def test_a_study_from_screening_to_page(study):
    folder, said = study
    page = (folder / "study.md").read_text()
    assert page.split("\n")[2].startswith("**At equal time")  # the answer
    for heading in ("## Final", "## Autoguidance", "## Screening", "## Dials", "Reliability of scores"):
        assert heading in page
    assert "Closest" in said or "certainly better" in said
    for link in page.split("](")[1:]:
        target = link.split(")")[0]
        if target.startswith("figures/"):
            assert (folder / target).stat().st_size > 2000
    final = json.loads((folder / "final.json").read_text())
    assert set(final) == {"time", "samples"}
    arms = {row["arm"] for row in final["time"]}
    assert {"baseline", "random", "early-ajest"} < arms
    assert len(arms) == 6  # two finalists and the best variant
    assert all(set(row["by_seed"]) == {"0", "1"} for row in final["time"])
    for guide in ("trained", "trained, of the other sign", "own snapshot at 1/8"):
        assert f"| {guide} |" in page
    guides = [folder / "guides" / where for where in ("full/guide-2", "guides-of-the-other-sign/guide-2")]
    gains = [jsonl.read(guide / "ledger.jsonl")[-1]["network"]["gain"] for guide in guides]
    assert gains[0] < 0 < gains[1]
    lines = jsonl.read(folder / "guides" / "full" / "arms" / "baseline" / "seed-0" / "guides.jsonl")
    judged_at = {(line["guide"], line["number"], line["weight"]) for line in lines}
    assert {(g, k, w) for g in ("trained", "trained, of the other sign") for k in (1, 2) for w in WEIGHTS} < judged_at
    judged = read(folder / "final" / "samples")
    assert [run.state for run in judged.guides] == ["done", "done"]
    assert all(bool(cell.by_guide) == (cell.weight != 1) for cell in judged.cells.values())


def test_budgets_of_a_study_are_equal(study):
    folder, _ = study
    for end, clock in (("time", "calibrated"), ("samples", "samples")):
        used = {}
        for ledger in (folder / "final" / end / "arms").glob("*/seed-0/ledger.jsonl"):
            last = json.loads(ledger.read_text().splitlines()[-1])
            used[ledger.parts[-3]] = last["clocks"][clock] / last["step"], last["clocks"][clock]
        config = read_bench(folder / "final" / end)
        whole = config.total(json.loads((folder / "final" / end / "calibration.json").read_text())["costs"])
        for arm, (step, total) in used.items():
            # The step in which the budget is over still counts: the longest of an arm is at most five mean ones.
            assert whole * (1 - 1e-9) <= total < whole + 5 * step, (end, arm)


def test_a_finished_study_is_not_run_again(study):
    folder, _ = study
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    script = folder.parent / "small.py"
    run = FORKED.run([script, folder])
    assert run.returncode == 0, run.stderr
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    assert {p: t for p, t in after.items() if "arms" in p.parts} == {
        p: t for p, t in before.items() if "arms" in p.parts
    }
