"""Published claims: what is asked of them, and how they are judged, by a real command."""

import math
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from made_up_claims import BASE, LOSS

from ajest.bench.plan.config import run_folder
from ajest.bench.plan.presets import tree_full
from ajest.bench.plan.tuning import Tuning
from ajest.bench.read.results import Cell, Results
from ajest.bench.read.statistics import paired
from ajest.claims import findings as of_claims
from ajest.claims import levels
from ajest.claims import run as running
from ajest.claims.catalogue import CHARGED, CLAIMS, EARLIER, PROJECTED, claims_named
from ajest.claims.levels import levels_bench, tune_levels, tuned_levels
from ajest.claims.page import render, sentences
from ajest.claims.run import PROBE, look, pieces, run_pieces
from ajest.claims.settings import SETTINGS, with_data
from ajest.claims.store import Verdicts
from ajest.diffusion.noising.source import noised
from ajest.diffusion.terms import with_term
from ajest.errors import UserError
from ajest.jobs.local import Local
from ajest.study.guides import GUIDES, GuideGain, GuidesResults
from forked import FORKED


def test_every_claim_names_arms_that_are_there_and_says_what_its_controls_test():
    guides = {guide.name for guide in GUIDES}
    for claim in CLAIMS.values():
        assert claim.all_arms() or {*claim.arms, *claim.controls} <= guides
        assert bool(claim.controls) == bool(claim.tests)
    assert [c.name for c in claims_named(("weights", "jest"))] == ["min-snr", "jest"]
    with pytest.raises(UserError, match="min-snr"):
        claims_named(("min-snrr",))


def test_a_bench_has_the_claims_of_a_group_with_the_baseline_and_fresh_seeds():
    claims, (tree, noisy) = claims_named(()), (SETTINGS["tree"], SETTINGS["tree-x0"])
    found = {(p.setting.name, p.group, p.end): p.config() for p in pieces(claims, (tree, noisy))}
    assert ("tree", "targets", "time") not in found  # exact targets have no noise to average
    assert ("tree-x0", "levels", "flops") not in found  # the same as equal samples
    for name, setting in SETTINGS.items():
        if name == "images" or (name == "digits" and find_spec("sklearn") is None):
            continue
        assert setting.judges(CLAIMS["excess"]) == (setting.make().task.exact_denoiser() is not None), name
    assert ("tree-x0", "selection", "flops") in found
    names = [arm.name for arm in found["tree-x0", "selection", "time"].arms]
    assert names[0] == "baseline"
    assert len(names) == len(set(names))
    assert {"random", "random-keep-0.65", "recall", "rho-keep-0.1"} < set(names)
    assert found["tree-x0", "targets", "time"].task.target == "x0"
    courses = {group: found["tree", group, "time"].recipe.learning_rate.course for group in ("course", "optimizer")}
    assert courses == {"course": "inverse-sqrt", "optimizer": "linear"}  # the first are judged beside another course
    known = {*tree_full().seeds, *range(25), *range(200, 220), 1000, 2000}
    for config in found.values():
        assert not known & set(config.seeds)
        assert config.tuning is not None
        assert not config.tuned


def test_guides_are_judged_against_none_and_against_their_controls(tmp_path, monkeypatch):
    def gain(guide, shift, number=1):
        noise = {seed: 1e-3 * ((7 * seed + len(guide)) % 5) for seed in BASE}
        guided = {s: tuple(v + shift + noise[s] + 1e-3 * k for k in range(number)) for s, v in BASE.items()}
        values = guided if number > 1 else {seed: value for seed, (value,) in guided.items()}
        found = paired(values, BASE, -1, list(BASE))
        return GuideGain(guide, "no", "2", LOSS, 2.0, values, BASE, found, None)

    gains = (gain(EARLIER, -0.4), gain(CHARGED, -0.3, 3), gain("trained", -0.5, 3), gain(PROJECTED, 0.2))
    monkeypatch.setattr(of_claims, "read_guides", lambda folder: GuidesResults(gains))
    found = {one.claim.name: one for one in of_claims.judged(tmp_path) if one.setting.name == "tree"}
    assert set(found) == {"autoguidance", "own-snapshot", "apg"}
    assert {name: one.left for name, one in found.items()} == {
        "autoguidance": "better", "own-snapshot": "better", "apg": "worse"
    }  # fmt: skip
    (own,) = found["own-snapshot"].tests
    assert own.controls[CHARGED].outcome == "better"
    assert own.gaps == pytest.approx([-0.4 + 1e-3 * ((7 * seed + len(EARLIER)) % 5) for seed in BASE])
    assert found["autoguidance"].tests[0].controls["trained"].outcome == "worse"
    said = sentences(found["own-snapshot"])[0]
    assert f"`{EARLIER}` certainly beats no guide on guided loss" in said
    assert f"| {EARLIER} | guided loss" in render(Verdicts(("ajest claims --only guides",), tuple(found.values())))


def test_guides_are_chosen_and_judged_on_seeds_of_their_own():
    (piece,) = pieces(claims_named(("guides",)), (SETTINGS["tree-x0"],))
    study = piece.study()
    assert (piece.end, piece.folder(Path("c"))) == ("time", Path("c/tree-x0/guides-time"))
    assert study.final_seeds == piece.setting.bench(claims_named(("min-snr",))).seeds
    assert not {*study.screening_seeds, *study.tuning.seeds} & set(study.final_seeds)
    assert not set(study.screening_seeds) & set(study.tuning.seeds)
    assert study.guides == 3


@pytest.mark.parametrize("name", ["tree", "tree-x0", "mixture", "images"])
def test_the_arm_that_changes_nothing_draws_what_the_baseline_draws(name, tmp_path):
    setting = SETTINGS[name] if name != "images" else with_data(SETTINGS[name], ("shapes:300",))
    config = setting.bench(claims_named(("min-snr",)))
    assert [arm.name for arm in config.arms[:2]] == ["baseline", setting.null]
    batches = []
    for arm in config.arms[:2]:
        source = noised(config.task.source("cpu"), arm.noising, 32)
        batches.append(source.complete(source.draw(32, torch.Generator().manual_seed(1))))
    mine, null = batches
    torch.testing.assert_close(null.x, mine.x)
    torch.testing.assert_close(null.weight, mine.weight)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_claim_of_a_setting_can_be_made_there(name):
    """What a source or a network refuses would stop a bench that has trained its guides already."""
    if name == "digits":
        pytest.importorskip("sklearn")
    setting = with_data(SETTINGS[name], ("shapes:300",)) if name == "images" else SETTINGS[name]
    mine = [claim for claim in CLAIMS.values() if setting.judges(claim) and claim.group != "guides"]
    assert len(mine) > 20
    for group in {claim.group for claim in mine}:
        config = setting.bench([claim for claim in mine if claim.group == group])
        source, network = config.task.source("cpu"), config.task.network("learner", 0)
        for arm in config.arms:
            drawn = config.recipe.super_batch if arm.scores or arm.policy == "uniform" else 128
            noised(source, arm.noising, drawn)
            with_term(network, arm.updates.term)
        moved = [arm.name for arm in config.arms if not arm.noising.keeps_best]
        assert bool(moved) == (group == "coupling")
        assert ("loss" in config.tuned_by) == (not moved)


def test_a_bench_that_cannot_be_made_leaves_the_others_alone(tmp_path, monkeypatch):
    asked = list(pieces(claims_named(("min-snr", "targets")), (SETTINGS["tree-x0"],), ("time",)))
    tried, told = [], []

    def refused(root, piece, launch, device):
        tried.append(piece.group)
        if piece.group == "weights":
            raise UserError("no room")

    monkeypatch.setattr(running, "_run", refused)
    with pytest.raises(UserError, match="1 of 2 benches were not made; tree-x0, weights, equal time: no room"):
        run_pieces(tmp_path, asked, Local(1), "cpu", lambda piece, error: told.append((piece.group, error is None)))
    assert tried == ["weights", "targets"]
    assert told == [("weights", False), ("targets", True)]


def test_levels_are_looked_for_around_the_best_until_that_is_the_middle(monkeypatch, tmp_path):
    made = []
    best = {0: "levels-6", 1: "levels-8", 2: "levels-5"}

    def make(where, bench):
        made.append((where.name, bench))

    def found(folder):
        arms = {arm.name: arm for arm in made[-1][1].arms}
        return arms[best.get(len(made) - 1, "levels-1")]

    monkeypatch.setattr(levels, "tuned_levels", found)
    base = SETTINGS["tree-x0"].plain()
    taken = tune_levels(tmp_path / "tuned-levels", base, make)
    assert [name for name, _ in made] == ["tuned-levels", "tuned-levels-2", "tuned-levels-3"]
    for (_, before), (_, after), name in zip(made, made[1:], best.values(), strict=False):
        middle = next(arm for arm in after.arms if arm.name == "levels-5")
        assert middle.noising == next(arm for arm in before.arms if arm.name == name).noising
    assert taken.noising == made[-1][1].arms[4].noising
    best.clear()  # from here on an edge is best each time
    made.clear()
    taken = tune_levels(tmp_path / "tuned-levels", base, make)
    assert len(made) == 4
    assert taken.summary.endswith("lie at the edge of what was tried")


def test_pictures_are_ones_own():
    with pytest.raises(UserError, match="name them with --data"):
        SETTINGS["images"].bench(claims_named(("min-snr",)))
    with pytest.raises(UserError, match="brings its own data"):
        with_data(SETTINGS["tree"], ("shapes",))
    config = with_data(SETTINGS["images"], ("shapes:300",)).bench(claims_named(("ajest",)), seeds=2)
    assert config.task.resolution == 16
    assert config.headlines == {"loss": "unguided", "fd_lite0": "guided"}
    assert config.seeds == (400, 401)


def test_the_best_log_normal_levels_are_found_on_tuning_seeds(monkeypatch, tmp_path):
    bench = levels_bench(SETTINGS["tree-x0"].plain())
    own = bench.task.source("cpu")
    middle = next(a.noising.levels for a in bench.arms if a.name == "levels-5")
    assert middle.location == pytest.approx(own.noise.mean - math.log(own.sigma_data))
    assert middle.scale == own.noise.std
    assert len({a.noising for a in bench.arms}) == 9
    assert bench.seeds == Tuning().seeds
    assert tuned_levels(tmp_path) is None
    values = {"levels-3": 0.1, "levels-7": 0.2}
    cells = {}
    for metric in bench.metrics:
        for weight in metric.headline_weights(bench.weight):
            for arm in bench.arms:
                where = (bench.final_budget, arm.name, metric.name, weight)
                cells[where] = Cell(*where, 200, {2000: -metric.sign * values.get(arm.name, 0.5)})
    results = Results(tmp_path, bench, {}, {}, (), {}, cells, {})
    monkeypatch.setattr(levels, "read", lambda folder: results)
    (tmp_path / "bench.json").write_text("{}")
    best = tuned_levels(tmp_path)
    assert (best.name, best.noising) == ("tuned-levels", bench.arms[2].noising)
    piece = next(p for p in pieces(claims_named(("levels",)), (SETTINGS["tree-x0"],), ("time",)))
    assert piece.needs_levels
    assert piece.config(best).arms[-1] == best


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A claim on a small tree, by the command."""
    out = tmp_path_factory.mktemp("claims")
    code = """
import sys
sys.path.insert(0, {tests!r})
from dataclasses import replace
from ajest.bench.plan.tuning import Tuning
from ajest.claims import settings
from conftest import small_bench, small_task
def small():
    return replace(small_bench(), task=small_task(gain_sign="negative", target="x0"), n_final=200, n_curve=200)
plain = settings.Setting.bench
def bench(self, *args):
    config = plain(self, *args)
    return replace(config, tuning=replace(config.tuning, seeds=(2000,), most=3), iterations=32, noise_repeats=0)
settings.Setting.bench = bench
settings.SETTINGS["tree-x0"] = replace(settings.SETTINGS["tree-x0"], make=small)
from ajest.cli.main import main
if __name__ == "__main__":
    sys.argv[1:] = ["claims", "--only", "targets", "--settings", "tree-x0", "--ends", "time", "--seeds", "2",
                    "--workers", "1", "--out", sys.argv[1]]
    main()
"""
    script = out / "small.py"
    script.write_text(code.format(tests=str(Path(__file__).parents[1])))
    for again in (False, True):  # the second time all is there
        run = FORKED.run([script, out / "c"], painted=again)
        assert run.returncode == 0, run.stderr
    return out / "c", run.stdout


def test_claims_from_command_to_page(folder):
    root, said = folder
    page = (root / "claims.md").read_text()
    assert said.splitlines()[0] == "tree-x0, targets, equal time: done"
    assert page.splitlines()[2].strip("*") in said
    assert "| [stable-target](#stable-target) |" in page
    assert "ajest claims --only targets --settings tree-x0 --ends time --seeds 2" in page
    for arm in ("stable-target-16", "stable-target-256"):
        assert f"`{arm}` cannot be told from the tuned baseline" in page  # two seeds decide nothing
    assert "the control `exact-target`" in page
    assert "| the tree, clean examples as targets | targets | equal time | eps-weight | energy distance" in page
    assert (root / "figures" / "claims.png").stat().st_size > 2000
    assert {p.name for p in (root / "tree-x0").iterdir()} == {"targets-time"}
    assert (root / "tree-x0" / "targets-time" / "tuning.json").exists()
    assert (root / "tree-x0" / "targets-time" / "probe.json").exists()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_card_is_left_to_workers_by_the_probe_as_well(device, tmp_path, monkeypatch):
    """A process that has computed on a card keeps memory there until it ends, and that of the command lives longest."""
    sent, looked = [], []

    class Recording(Local):
        def work(self, do, jobs, device, threads, lines, say, folder):
            sent.extend((do, job) for job in jobs)

    monkeypatch.setattr(running, "run_bench", lambda *_: None)
    monkeypatch.setattr(running, "probe", lambda folder, *_, **__: looked.append(folder) or {"all": 1.0})
    piece = next(pieces(claims_named(("targets",)), (SETTINGS["tree-x0"],), ("time",), seeds=2))
    config = piece.config()
    piece.folder(tmp_path).mkdir(parents=True)
    run_pieces(tmp_path, [piece], Recording(workers=1), device, lambda *_: None)
    baseline = run_folder(piece.folder(tmp_path), config.baseline, config.seeds[0])
    assert looked == ([baseline] if device == "cpu" else [])
    assert [(do, job.run, job.device) for do, job in sent] == ([(look, baseline, "cuda")] if device == "cuda" else [])
    for do, job in sent:
        do(job, lambda *_: None)
    assert looked == [baseline]
    assert (piece.folder(tmp_path) / PROBE).exists()


def test_guides_have_one_bench_whatever_budget_is_asked_for():
    """What a guide's training takes is charged as time, which no other budget changes."""
    (piece,) = pieces(claims_named(("guides",)), (SETTINGS["tree"],), ("samples", "flops"))
    assert piece.end == "time"
