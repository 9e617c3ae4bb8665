"""`ajest train --recipe best`: what the trials support, in one word."""

from pathlib import Path

import pytest

from ajest.bench.plan.presets import bench_of, presets_of
from ajest.bench.plan.recipes import BEST
from ajest.selection.catalogue import arms_named
from ajest.training.run_folder import read_config


def test_the_best_recipe_of_the_tree_trains(command, tmp_path):
    best = BEST["tree"]
    done = command("train", "tree", "--recipe", "best", "--iterations", "16", "--super-batch", "64", "--out", "r")
    assert done.code == 0, done.err
    assert done.out.startswith(
        "r: random+muon+second-moment at a rate of 0.136, with the networks of full: docs/best-recipe.md\n"
    )
    assert "r: not as that page judged it, by --iterations, --super-batch: what it says may not hold here\n" in done.out
    config = read_config(tmp_path / "r")
    (arm,) = arms_named((best.arm,))
    assert config.arm == arm
    assert config.recipe.learning_rate.peak == best.rate
    preset = bench_of("tree", best.preset)
    assert config.recipe.learning_rate.course == preset.recipe.learning_rate.course
    assert config.task == preset.task
    words = done.out.split("Next: ajest ")[1].split()
    judged = command(*words, "--n", "256")
    assert judged.code == 0, judged.err
    assert "mandala" in judged.out


def test_a_rate_asked_for_stands_and_what_contradicts_the_recipe_is_refused(command, refused, tmp_path):
    small = ("--iterations", "2", "--super-batch", "64", "--out")
    assert command("train", "tree", "--recipe", "best", "--learning-rate", "0.01", *small, "r").code == 0
    assert read_config(tmp_path / "r").recipe.learning_rate.peak == 0.01
    refused("train", "tree", "--recipe", "best", "--arm", "hard", *small, "s", says="leave out --preset and --arm")
    refused("train", "tree", "--recipe", "best", "--preset", "quick", *small, "s", says="leave out --preset and --arm")
    refused("train", "tree", "--recipe", "best", "--network", "guide", *small, "s", says="is for the learner")
    refused("train", "vectors", "--recipe", "best", *small, "s", says="no recipe is known to be best for vectors")
    assert not (tmp_path / "s").exists()


def test_the_recipe_as_it_was_judged_stands_without_reserve(command, monkeypatch):
    monkeypatch.setattr("ajest.training.run.execute", lambda *_: "done")
    best = BEST["tree"]
    asked = ("train", "tree", "--recipe", "best", "--iterations", best.steps, "--seed", "3", "--out", "r")
    assert "may not hold" not in command(*asked).out
    assert "by --learning-rate:" in command(*asked, "--learning-rate", "0.1").out


@pytest.mark.parametrize("task", BEST)
def test_every_best_recipe_is_of_a_preset_and_an_arm_that_there_are(task):
    best = BEST[task]
    assert arms_named((best.arm,))[0].axis
    assert best.preset in presets_of(task)
    assert (Path(__file__).parents[2] / best.source).exists()
