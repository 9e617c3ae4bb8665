"""Several guides, crossed with the seeds, and evaluations with other sampling noise."""

import shutil
from dataclasses import replace

import pytest

from ajest.bench.plan.config import guide_folder, run_folder
from ajest.bench.plan.presets import IMAGES, any_full, any_quick, tree_paper, tree_quick, vectors_full, vectors_quick
from ajest.bench.read.folder import read
from ajest.bench.read.verdict import decisive
from ajest.bench.run.bench import run_bench
from ajest.bench.run.disk import claims
from ajest.bench.run.evaluation import key
from ajest.errors import UserError
from ajest.selection.catalogue import arms_named
from ajest.storage import jsonl
from ajest.training.run_folder import read_config, read_status
from conftest import Here, small_bench, small_task

ONE = small_bench(arms=arms_named(("baseline", "ajest")))
THREE = replace(ONE, guides=3, noise_repeats=2)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    root = tmp_path_factory.mktemp("guides") / "one"
    run_bench(root, ONE, Here())
    return root


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    root = tmp_path_factory.mktemp("guides") / "three"
    run_bench(root, THREE, Here())
    return root


def lines(root, arm="baseline", seed=0):
    return jsonl.read(run_folder(root, arm, seed) / "metrics.jsonl")


def test_guides_have_seeds_and_folders_of_their_own(three):
    folders = [guide_folder(three, number) for number in (1, 2, 3)]
    assert [folder.name for folder in folders] == ["guide", "guide-2", "guide-3"]
    assert [(read_config(f).role, read_config(f).seed) for f in folders] == [("guide", 0), ("guide", 1), ("guide", 2)]
    assert {read_status(f)["state"] for f in folders} == {"done"}
    assert [len(jsonl.read(f / "metrics.jsonl")) for f in folders] == [1, 1, 1]
    assert [run.state for run in read(three).guides] == ["done"] * 3
    claimed = [claim for claim in claims(three, THREE) if claim.config.role == "guide"]
    assert [(claim.folder, claim.config) for claim in claimed] == [(f, read_config(f)) for f in folders]


def test_what_compares_with_a_guide_trains_with_the_first(one, three):
    for seed in ONE.seeds:
        stored = [run_folder(root, "ajest", seed) / "reference.json" for root in (one, three)]
        assert stored[0].read_bytes() == stored[1].read_bytes()


def test_budgets_that_count_are_measured_with_every_guide_and_others_with_the_first(one, three):
    ours, theirs = read(three), read(one)
    assert {"samples", "steps"} <= set(ours.amounts)
    assert set(decisive(ours)) <= {budget for budget in ours.amounts if THREE.counts(budget)}
    for (budget, arm, metric, weight), cell in ours.cells.items():
        several = weight != 1 and THREE.counts(budget)
        assert set(cell.values) == {0, 1}
        assert {len(of_seed) for of_seed in cell.by_guide.values()} == ({3} if several else set())
        for seed, of_seed in cell.by_guide.items():
            assert cell.values[seed] == pytest.approx(sum(of_seed) / 3)
        if budget in ("samples", "steps"):  # the others are in time, which differs between the two
            before = theirs.cell(budget, arm, metric, weight).values
            assert before == ({s: v[0] for s, v in cell.by_guide.items()} if several else cell.values)
    cell = ours.cell("steps", "baseline", "mandala", THREE.weight)
    assert all(len(set(of_seed)) > 1 for of_seed in cell.by_guide.values())
    for run in (ours.runs["ajest", 1], theirs.runs["ajest", 1]):
        assert set(run.points(THREE.n_curve, THREE.weight)) == {0, 1}
    assert {line.get("guide", 1) for line in ours.runs["ajest", 1].lines} == {1, 2, 3}


def test_what_is_unguided_is_not_measured_again_for_each_guide(three):
    for arm in ("baseline", "ajest"):
        for seed in THREE.seeds:
            found = [key(line) for line in lines(three, arm, seed)]
            assert len(found) == len(set(found))
    plain = [(x["step"], x["n"]) for x in lines(three) if x["weight"] == 1 and "noise" not in x]
    assert len(plain) == len(set(plain))


def test_with_one_guide_lines_are_those_of_today(one):
    assert {name for line in lines(one) for name in line} == {
        "step",
        "width",
        "weight",
        "n",
        "guide",
        "clocks",
        "metrics",
        "by_level",
    }
    assert not (one / "guide-2").exists()
    assert all(not cell.by_guide for cell in read(one).cells.values())
    assert read(one).repeats == {}


def test_the_baselines_end_is_measured_with_other_noise(three):
    results = read(three)
    metric = "energy_distance"
    for weight in THREE.headline_weights():
        repeats = results.repeats[metric, weight]
        assert set(repeats) == {0, 1}
        for seed, further in repeats.items():
            cell = results.cell("steps", "baseline", metric, weight)
            first = cell.values[seed] if weight == 1 else cell.by_guide[seed][0]
            assert len({first, *further}) == 3
    noisy = [line for line in lines(three) if "noise" in line]
    assert len(noisy) == THREE.noise_repeats * len(THREE.headline_weights())
    assert {(line["step"], line["n"]) for line in noisy} == {(THREE.iterations, THREE.n_final)}
    assert not any("noise" in line for line in lines(three, "ajest"))


def test_a_bench_with_guides_goes_on_and_does_nothing_twice(three, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(three, root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.jsonl")}
    run_bench(root, THREE, Here())
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.jsonl")} == before
    whole = read(root).cells
    path = run_folder(root, "ajest", 1) / "metrics.jsonl"
    third = max(line["guide"] for line in jsonl.read(path) if "guide" in line)  # the identity of one of them
    jsonl.rewrite(path, [line for line in jsonl.read(path) if line.get("guide") != third])
    where = ("steps", "ajest", "mandala", THREE.weight)
    assert set(read(root).cells[where].values) == {0}, "a mean over some guides stands for none over all"
    shutil.rmtree(guide_folder(root, 3))
    run_bench(root, THREE, Here())
    assert read(root).cells == whole


def test_a_bench_needs_a_guide():
    with pytest.raises(UserError, match="at least 1 guide, not 0"):
        small_bench(guides=0)
    with pytest.raises(UserError, match="noise_repeats"):
        small_bench(noise_repeats=-1)


def test_presets_have_three_guides_unless_they_are_quick_or_reproduce():
    task = small_task()
    assert [make().guides for make in (tree_quick, tree_paper)] == [1, 1]
    assert [make(task).guides for make in (any_quick, any_full, vectors_quick, vectors_full)] == [1, 3, 1, 3]
    assert {name: dials.guides for name, dials in IMAGES.items()} == {
        "cpu-mini": 1, "cpu-small": 3, "gpu-mini": 3, "paper": 1,
    }  # fmt: skip
