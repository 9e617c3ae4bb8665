"""What tests share: reference vectors, small configs, hypothesis settings."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import hypothesis
import pytest
import torch

from ajest.bench.plan.config import BenchConfig
from ajest.bench.report import drawing, figures
from ajest.cli import main as cli
from ajest.jobs.local import Local
from ajest.runtime import interrupts, threads
from ajest.selection.catalogue import arms_named
from ajest.tasks.images import extractors, lite0
from ajest.tasks.images.architecture import Architecture
from ajest.tasks.images.setup import image_task
from ajest.tasks.images.task import ImageTask
from ajest.tasks.tree.task import TreeTask
from ajest.training.recipe import LearningRate, Recipe
from forked import one_dot

hypothesis.settings.register_profile("ajest", deadline=None, max_examples=40, derandomize=True)
hypothesis.settings.load_profile("ajest")
# Commands that tests start keep what they compile, whatever this session was told: hundreds of files each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# One test runs on each core: benches within them get no more threads than that.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# Decoded images and features of a test session, made once for all of its processes and the commands that they run.
if "AJEST_TESTS_CACHE" not in os.environ:
    os.environ["AJEST_TESTS_CACHE"] = tempfile.mkdtemp(prefix="ajest-test-cache-")
    atexit.register(shutil.rmtree, os.environ["AJEST_TESTS_CACHE"], ignore_errors=True)
os.environ["AJEST_CACHE"] = os.environ["AJEST_TESTS_CACHE"]

_rasterised = figures.rasterised


def pytest_configure() -> None:
    figures.rasterised = drawing.rasterised = one_dot


@contextmanager
def painting():
    """Figures are painted, as people see them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (figures, drawing):
            patch.setattr(module, "rasterised", _rasterised)
        yield


@pytest.fixture(scope="module")
def painted():
    """The figures of these tests are painted, as people see them."""
    with painting():
        yield


@pytest.fixture(scope="module")
def small_judge():
    """The feature network of these tests sees 32 x 32 pixels in place of 128 x 128, which takes a tenth of the time; in
    this process alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lite0, "RESOLUTION", 32)
        extractors._made.cache_clear()
        yield
    extractors._made.cache_clear()


@pytest.fixture
def nothing_kept():
    """Feature networks of these tests are read anew by each."""
    yield
    extractors._made.cache_clear()
    lite0.load.cache_clear()


DATA = Path(os.environ.get("AJEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
REFERENCE = Path(__file__).parent / "reference"
LARGE_REFERENCE = Path(os.environ.get("AJEST_REFERENCE", Path(__file__).parents[2] / "shared" / "reference"))


@pytest.fixture
def signals(monkeypatch):
    """The module `signal`, while this process takes signals as a command does."""
    monkeypatch.setattr(interrupts, "_asked_at", None)
    monkeypatch.setattr(interrupts, "_over", False)
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    interrupts.listen()
    yield signal
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Runs words as `ajest` would, in a folder of its own and in this process: another takes seconds to begin."""
    monkeypatch.setattr(interrupts, "listen", lambda: None)
    monkeypatch.setattr(threads, "configure_threads", lambda *_: None)
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["ajest", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(command):
    """Words that end with one line on stderr, which says this."""

    def check(*words: object, says: str) -> None:
        done = command(*words)
        assert done.code == 2, done
        assert done.err.startswith("ajest: "), done
        assert done.err.count("\n") == 1, done
        assert re.search(says, done.err), done.err

    return check


@pytest.fixture(scope="session")
def reference():
    """Folder of the test vectors that come with the tests; its README says where they are from."""
    return REFERENCE


@pytest.fixture(scope="session")
def large_reference():
    """Folder of test vectors too large for the repository, kept beside it; AJEST_REFERENCE names another."""
    if not LARGE_REFERENCE.is_dir():
        pytest.skip(f"the large reference vectors are not at {LARGE_REFERENCE}; set AJEST_REFERENCE to their folder")
    return LARGE_REFERENCE


@pytest.fixture(scope="session")
def tiny_imagenet():
    """Real photographs, kept beside the repository; AJEST_DATA names another folder."""
    if not DATA.is_dir():
        pytest.skip(f"Tiny ImageNet's archives are not at {DATA}; set AJEST_DATA to their folder")
    parts = [DATA / f"tiny-imagenet-200.train-{i}of4.zip" for i in (1, 2)]
    return [str(p) for p in parts], str(DATA / "tiny-imagenet-200.val-first5000.zip")


@cache
def small_images(**changes) -> ImageTask:
    """Shapes at 16 x 16, and networks of a few channels."""
    settings = {
        "learner": Architecture(channels=8, multipliers=(1, 2), blocks=1, attention=(8,)),
        "guide": Architecture(channels=4, multipliers=(1, 2), blocks=1, attention=()),
        "sampler_steps": 3,
        "references": 96,
        "chunk": 64,
    }
    return image_task(("shapes:256",), ("shapes:128",), resolution=16, **{**settings, **changes})


#: The least network for images: an eighth of the time of those of `small_images`.
TINY = Architecture(channels=4, multipliers=(1,), blocks=1, attention=(), patch=2)


def tiny_images(**changes) -> ImageTask:
    """As `small_images`, for tests that are of no network."""
    return small_images(**{"learner": TINY, "guide": TINY, **changes})


def small_task(**changes: object) -> TreeTask:
    return replace(TreeTask(hidden=16, guide_hidden=8, layers=2, sampler_steps=8, gain_sign="free"), **changes)


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


class Here(Local):
    """Jobs done one after the other in this process, which takes no time to start."""

    def work(self, do, jobs, device, threads, lines, say, folder):
        for job in jobs:
            do(job, lambda *_: None)
