"""What the quick presets of tasks other than the tree and images promise: that a network learns in their steps."""

from dataclasses import replace

import pytest
import torch
from test_examples import EXAMPLES

from ajest.bench.plan.presets import VECTOR_WIDTHS, bench_of
from ajest.tasks import Guided, Measurement, from_spec
from ajest.tasks.vectors.builtin import mixture_of
from ajest.tasks.vectors.setup import vectors_task
from ajest.training.run import execute
from ajest.training.schedule import Schedule


def learned(task, folder):
    """The network that the baseline of the task's quick bench ends with: its reported average."""
    bench = replace(bench_of(task, "quick"), end="steps")
    trainers = []
    run = bench.run(bench.arms[0], bench.seeds[0])
    ended = execute(folder, run, Schedule({"steps": (bench.iterations,)}), progress=lambda _, t: trainers.append(t))
    assert ended == "done"
    return trainers[-1].ema[bench.recipe.ema_widths[0]]


def test_a_ring_is_learned_to_a_fortieth_of_its_radius(tmp_path):
    """The example's network has no more than a handful of layers; untrained its samples are 0.4 off."""
    task = from_spec(f"{EXAMPLES / 'custom_task.py'}:Ring")
    how = Measurement(4000, 1, tmp_path)
    before = task.evaluate(Guided(task.network("learner", 0)), how).metrics["radius"]
    after = task.evaluate(Guided(learned(task, tmp_path / "run")), how).metrics["radius"]
    assert before > 0.3
    assert after < 0.025


def test_a_mixture_of_16_coordinates_is_learned_to_2_percent_of_the_least_loss(tmp_path):
    """Its exact denoiser is known, so what can be learned at all is known too."""
    hidden, guide_hidden = VECTOR_WIDTHS["quick"]
    task = vectors_task(("mixture-16d",), hidden=hidden, guide_hidden=guide_hidden, warn=lambda _: None)
    mean, scale = (torch.tensor(numbers) for numbers in (task.standard.mean, task.standard.scale))
    exact = mixture_of("mixture-16d").standardised(mean, scale)
    network = learned(task, tmp_path / "run")
    how = Measurement(2000, 1, tmp_path)
    least, mine = (task.evaluate(Guided(d), how).metrics for d in (exact.denoise, network))
    assert mine["loss"] == pytest.approx(least["loss"], rel=0.02)
    real = task.real_data_reference(how)
    assert mine["coverage"] > 0.9 * real["coverage"]
    untrained = task.evaluate(Guided(task.network("learner", 0)), how).metrics
    assert untrained["loss"] > 2 * least["loss"]
    assert abs(mine["energy_distance"]) < untrained["energy_distance"] / 20
