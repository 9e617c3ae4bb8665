"""How far a reconstructed EMA is from the width asked for: closed form, what is refused, what a guide keeps."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ajest import PowerEMA, posthoc_coefficients, posthoc_residual, reconstruct
from ajest.diffusion.ema import SPANNING, TOLERANCE, average_of, exponent
from ajest.storage import jsonl
from ajest.study.guides import GUIDES
from ajest.study.plan import OWN_SHARES
from ajest.study.presets import tree_full
from ajest.training.networks import load_network
from ajest.training.run import execute
from ajest.training.run_folder import read_config, snapshots
from conftest import small_bench


def stored(shares, widths):
    """(time, width) of every average that a run of length 1 keeps."""
    return [t for t in shares for _ in widths], list(widths) * len(shares)


def evenly(count):
    return [k / count for k in range(1, count + 1)]


@pytest.mark.parametrize(
    ("kept", "count", "width", "residual"),
    [
        ((0.01, 0.05, 0.1), 16, 0.005, 0.1839),  # what the first study on the tree called 0.005
        ((0.01, 0.05, 0.1), 16, 0.25, 0.0675),
        ((0.01, 0.05, 0.1), 4, 0.25, 0.3583),
        ((0.01, 0.05, 0.1), 1, 0.25, 0.9939),
        ((0.1, 0.05), 1, 0.01, 0.9825),
    ],
)
def test_the_residual_is_the_distance_between_profiles(kept, count, width, residual):
    times, widths = stored(evenly(count), kept)
    assert posthoc_residual(times, widths, 1.0, width) == pytest.approx(residual, abs=1e-4)
    # The same by integrating the profiles themselves; they end steeply, so the grid does so too.
    at = 1 - np.linspace(1, 0, 400_001) ** 2
    middle, step = (at[1:] + at[:-1]) / 2, np.diff(at)

    def profile(t, w):
        g = exponent(w)
        return np.where(middle <= t, (g + 1) * np.minimum(middle / t, 1) ** g / t, 0.0)

    wanted, c = profile(1.0, width), posthoc_coefficients(times, widths, 1.0, width)
    found = sum(k * profile(t, w) for k, t, w in zip(c, times, widths, strict=True))
    numeric = np.sqrt((np.square(found - wanted) * step).sum() / (np.square(wanted) * step).sum())
    assert residual == pytest.approx(numeric, rel=2e-3)


def test_a_kept_width_has_no_residual_and_more_snapshots_have_less():
    times, widths = stored(evenly(8), (0.05, 0.1))
    assert posthoc_residual(times, widths, 1.0, 0.05) < 1e-6
    assert posthoc_residual([t * 4096 for t in times], widths, 4096.0, 0.02) == pytest.approx(
        posthoc_residual(times, widths, 1.0, 0.02)
    )
    found = [posthoc_residual(*stored(evenly(n), (0.05, 0.1)), 1.0, 0.15) for n in (2, 4, 8, 16)]
    assert found == sorted(found, reverse=True)
    with pytest.raises(ValueError, match="after the last"):
        posthoc_residual([1.0], [0.1], 2.0, 0.1)


def test_the_residual_is_the_error_of_weights_without_memory():
    """Where weights are white noise in time, averages are as far apart as their profiles, up to the steps' length."""
    torch.manual_seed(0)
    kept, wanted, steps = (0.05, 0.1), (0.2, 0.15, 0.07), 512
    network = torch.nn.Linear(20_000, 1, bias=False).double()
    ema, states = PowerEMA(network, (*kept, *wanted)), {}
    for t in range(1, steps + 1):
        network.weight.data.normal_()
        ema.update(t)
        if t % (steps // 4) == 0:
            states[t] = {k: v.clone() for k, v in ema.state_dict().items()}
    times, widths = stored([float(t) for t in states], kept)
    for width in wanted:
        coefficients = posthoc_coefficients(times, widths, float(steps), width)
        found = reconstruct([average_of(s, w) for s in states.values() for w in kept], coefficients)["weight"]
        error = (found - ema[width].weight).norm() / ema[width].weight.norm()
        assert error.item() == pytest.approx(posthoc_residual(times, widths, float(steps), width), rel=0.05)


@pytest.mark.parametrize("preset", [(0.01, 0.05, 0.1), (0.1, 0.05)])
def test_a_guide_keeps_what_every_usual_width_is_made_of(preset):
    widths = tuple(dict.fromkeys((*preset, *SPANNING)))
    times, widths = stored(evenly(4), widths)
    worst = max(posthoc_residual(times, widths, 1.0, w) for w in np.geomspace(0.01, 0.25, 60))
    assert worst < 0.0115 < TOLERANCE
    assert max(np.abs(posthoc_coefficients(times, widths, 1.0, w)).sum() for w in np.geomspace(0.01, 0.25, 60)) < 40


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A guide of a bench, and a learner of which only the end was kept."""
    root = tmp_path_factory.mktemp("widths")
    config = small_bench(guide_iterations=40)
    assert execute(root / "guide", config.guide(), config.guide_schedule()) == "done"
    run = replace(config.run(config.arms[0], 0), iterations=40)
    assert execute(root / "learner", run, replace(config.guide_schedule(), budgets={})) == "done"
    return root


def test_a_benchs_guide_has_any_usual_width(runs):
    assert read_config(runs / "guide").recipe.ema_widths[0] == small_bench().recipe.ema_widths[0]
    assert list(snapshots(runs / "guide")) == [10, 20, 30, 40]
    for width in (0.01, 0.015, 0.03, 0.07, 0.13, 0.2, 0.25):
        said = []
        load_network(runs / "guide", width=width, say=said.append)
        assert len(said) == (width not in SPANNING)


def test_train_gives_a_guide_any_usual_width_too(command):
    few = ("--super-batch", 32, "--iterations")
    assert command("train", "tree", "--network", "guide", *few, 64, "--out", "guide").code == 0
    assert command("train", "tree", *few, 4, "--out", "run").code == 0
    guided = ("--guide", "guide", "--weight", 2, "--guide-width", 0.03)
    done = command("sample", "run", "--n", 16, *guided, "--out", "out")
    assert done.code == 0
    assert "an EMA of width 0.03 at step 64, made of 16 snapshots" in done.out


def test_a_width_that_was_not_kept_is_refused_where_it_would_be_another_unless_asked_for(runs, command, refused):
    learner, allowed = runs / "learner", "--allow-inexact-ema"
    off = r"learner: .* made of 1 snapshot of 0.01, 0.05, 0.1, is 99\.39% off .*--allow-inexact-ema"
    guided = ("--guide", learner, "--guide-width", 0.25)
    for words in (("sample", runs / "guide", *guided), ("sample", learner, "--width", 0.25)):
        refused(*words, "--n", 16, "--out", "out", says=off)
        done = command(*words, "--n", 16, "--out", "out", allowed)
        assert (done.code, done.out.count("99.39% off its profile")) == (0, 1)

    for folder, asked in ((learner, ("--widths", 0.25)), (runs / "guide", (*guided, "--weights", 2))):
        words, lines = ("evaluate", folder, "--n", 200, *asked), folder / "metrics.jsonl"
        refused(*words, says=off)
        assert not jsonl.read(lines)
        done = command(*words, allowed)
        assert (done.code, done.out.count("99.39% off its profile"), len(jsonl.read(lines))) == (0, 1, 1)
        refused(*words, says=off)  # known by now, and none the better for it


def test_a_studys_runs_keep_every_average_that_they_are_to_be_guided_by():
    study = tree_full()
    for bench in study.stage("guides").values():
        assert bench.recipe.ema_widths[0] == study.recipe.ema_widths[0]
        assert bench.guide() == study.stage("final")["time"].guide()  # one guide serves all stages
        assert {g.width for g in GUIDES} - {None} <= set(bench.recipe.ema_widths)
        assert {g.share for g in GUIDES} - {None} <= set(bench.curve) == set(OWN_SHARES)
    assert study.stage("final")["time"].recipe == study.recipe
