"""What tests share: reference vectors, small configs, hypothesis settings."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import torch

from ajest.arms import arms_named
from ajest.bench.plan import BenchConfig
from ajest.tasks import TreeTask
from ajest.training import LearningRate, Recipe

hypothesis.settings.register_profile("ajest", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("ajest")
torch.set_num_threads(1)

REFERENCE = Path(os.environ.get("AJEST_REFERENCE", Path(__file__).parents[2] / "shared" / "reference"))


@pytest.fixture(scope="session")
def reference():
    """Folder of published test vectors, kept beside the repository; AJEST_REFERENCE names another."""
    if not REFERENCE.is_dir():
        pytest.skip(f"reference vectors are not at {REFERENCE}; set AJEST_REFERENCE to their folder")
    return REFERENCE


def small_task() -> TreeTask:
    return TreeTask(hidden=16, guide_hidden=8, layers=2, sampler_steps=8)


def small_recipe(**changes) -> Recipe:
    return replace(Recipe(super_batch=256, learning_rate=LearningRate(decay=16)), **changes)


def small_bench(**changes) -> BenchConfig:
    config = BenchConfig(
        task=small_task(),
        recipe=small_recipe(),
        arms=arms_named(("baseline", "ajest", "random", "late-ajest")),
        seeds=(0, 1),
        iterations=40,
        guide_iterations=8,
        n_final=512,
        n_curve=256,
        curve=(0.5, 1.0),
        calibration_rounds=3,
    )
    return replace(config, **changes)
