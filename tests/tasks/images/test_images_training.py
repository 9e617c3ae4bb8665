import copy
import shutil
from dataclasses import replace

import pytest
import torch

from ajest.diffusion.denoising import objective, per_example_loss
from ajest.errors import Diverged, UserError
from ajest.runtime.seeding import Streams, generator
from ajest.selection.catalogue import ARMS, arms_named
from ajest.selection.counts import ExampleCounts
from ajest.selection.flow import Networks
from ajest.selection.policies import within
from ajest.selection.registry import policy
from ajest.selection.scoring import Scores
from ajest.storage import checkpoint
from ajest.tasks.images.architecture import Architecture
from ajest.tasks.images.layers import normalize
from ajest.tasks.images.source import to_float, to_uint8
from ajest.training.recipe import LearningRate, Recipe
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig, read_status, snapshots
from ajest.training.schedule import Schedule
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe

RECIPE = Recipe(super_batch=40, learning_rate=LearningRate(0.01, 0), ema_widths=(0.1,), not_finite="zero")


def trainer(arm="baseline", seed=0, **changes):
    task, recipe = small_images(), replace(RECIPE, **changes)
    arm = arms_named((arm,), chunks=4)[0] if isinstance(arm, str) else arm
    guide = task.network("guide", 5).eval().requires_grad_(False)
    return Trainer(task.source("cpu"), Networks(task.network("learner", seed), guide), recipe, arm, Streams(seed))


def test_a_source_draws_noised_images_whose_prefix_is_stable():
    source = small_images().source("cpu")
    long, short = (source.draw(n, generator(3, "draw", 0)) for n in (40, 7))
    for name in ("x", "sigma", "weight", "id", "target", "label"):
        assert torch.equal(getattr(long, name)[:7], getattr(short, name)), name
    assert long.target.abs().max() <= 1
    noise = (long.x - long.target) / long.sigma[:, None, None, None]
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    task = small_images()
    assert torch.equal(long.target, to_float(torch.from_numpy(task.image_set("train").images[long.id.numpy()])))
    assert torch.equal(long.label, torch.from_numpy(task.image_set("train").labels)[long.id])
    torch.testing.assert_close(long.weight, (long.sigma**2 + 0.25) / (long.sigma * 0.5) ** 2)
    assert source.complete(long) is long


def test_half_the_resolution_is_half_the_noise():
    source = small_images().source("cpu")
    batch = source.draw(64, generator(3, "draw", 0))
    half = source.halved(batch)
    assert half.x.shape == (64, 3, 8, 8)
    torch.testing.assert_close(half.target[:, :, 0, 0], batch.target[:, :, :2, :2].mean((2, 3)))
    noise = (half.x - half.target) / half.sigma[:, None, None, None]
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(half.weight, (half.sigma**2 + 0.25) / (half.sigma * 0.5) ** 2)
    assert torch.equal(half.id, batch.id)


def test_flips_are_off_unless_asked_for_and_mirror_half():
    plain, flipped = small_images().source("cpu"), small_images(flip=True).source("cpu")
    a, b = (s.draw(64, generator(0, "draw")) for s in (plain, flipped))
    assert torch.equal(a.id, b.id)
    mirrored = [torch.equal(x.flip(2), y) and not torch.equal(x, y) for x, y in zip(a.target, b.target, strict=True)]
    same = [torch.equal(x, y) for x, y in zip(a.target, b.target, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 16 <= sum(mirrored) <= 48


def test_images_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_the_objective_has_the_uncertainty_head_and_scores_have_not():
    t = trainer()
    t.network.logvar_linear.weight.data.mul_(2)
    batch = t.selector.source.draw(8, generator(0, "x"))
    losses = per_example_loss(t.network(batch.x, batch.sigma, batch.label), batch)
    u = t.network.uncertainty(batch.sigma)
    by_hand = (losses / u.exp() + u) * 3 * 16 * 16
    torch.testing.assert_close(objective(losses, batch, t.network), by_hand)
    assert objective(losses, batch, torch.nn.Identity()) is losses


def test_an_untrained_network_has_a_loss_near_one_at_every_noise_level():
    batch = small_images(sigma_data=0.5).source("cpu").draw(256, generator(0, "x"))
    network = small_images().network("learner", 0)
    with torch.no_grad():
        losses = per_example_loss(network(batch.x, batch.sigma, batch.label), batch)
    scale = batch.target.square().flatten(1).mean(1) / 0.25
    expected = (batch.sigma**2 * scale + 0.25) / (batch.sigma**2 + 0.25)
    assert float((losses / expected).mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("arm", ["baseline", "ajest"])
def test_micro_batches_change_memory_and_not_the_step(arm):
    whole, parts = trainer(arm), trainer(arm, micro_batch=7)
    for t in (whole, parts):
        t.step()
    # Each training forward normalises the stored weights anew, by 1e-4 short of 1: what acts is the direction.
    for a, b in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
        a, b = (normalize(p.detach(), tuple(range(1, p.ndim))) if p.ndim > 1 else p.detach() for p in (a, b))
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
    assert whole.ledger.counts == parts.ledger.counts
    assert torch.equal(whole.example_counts.trained, parts.example_counts.trained)


def test_learner_and_reference_are_scored_on_the_same_noised_examples_without_the_head():
    t = trainer("ajest")
    before = copy.deepcopy(t.network).eval()
    step = t.step()
    with torch.no_grad():
        losses = per_example_loss(before(step.batch.x, step.batch.sigma, step.batch.label), step.batch)
    torch.testing.assert_close(step.scores.learner, losses, rtol=2e-3, atol=2e-3)


def test_selection_within_parts_takes_an_equal_share_of_each():
    g = generator(0, "scores")
    scores = Scores(torch.randn(64, generator=g), torch.randn(64, generator=g))
    best = policy("learnability")
    kept = within(best, 16, scores, 8, None)
    for part in range(4):
        mine = kept[(kept >= 16 * part) & (kept < 16 * part + 16)]
        assert set(mine.tolist()) == set((best(scores[16 * part : 16 * part + 16], 2, None) + 16 * part).tolist())
    with pytest.raises(UserError, match="equal parts of 10"):
        within(best, 10, scores, 8, None)
    arm = arms_named(("ajest",), keep=0.25, chunks=2, within=10)[0]
    step = trainer(arm).step()
    assert [int(((step.kept >= 10 * i) & (step.kept < 10 * i + 10)).sum()) for i in range(4)] == [3, 3, 2, 2]
    with pytest.raises(UserError, match="parts of 16"):
        arms_named(("ajest",), within=16)[0].kept(40)


def test_every_example_is_counted_by_its_id():
    t = trainer("ajest")
    ids, trained = [], []
    for _ in range(3):
        step = t.step()
        ids += step.batch.id.tolist()
        trained += step.batch.id[step.kept].tolist()
    assert t.example_counts.drawn.tolist() == [ids.count(i) for i in range(len(t.example_counts.drawn))]
    assert t.example_counts.trained.tolist() == [trained.count(i) for i in range(len(t.example_counts.trained))]
    assert int(t.example_counts.trained.sum()) == t.ledger.counts.trained == 24
    other = trainer("ajest")
    other.restore(*t.state())
    assert torch.equal(other.example_counts.drawn, t.example_counts.drawn)
    fresh = ExampleCounts()
    fresh.count(torch.tensor([5, 5]), torch.tensor([2]))
    assert (fresh.drawn.tolist(), fresh.trained.tolist()) == ([0, 0, 0, 0, 0, 2], [0, 0, 1, 0, 0, 0])


def test_a_learning_rate_can_count_steps_or_examples():
    by_steps, by_examples = LearningRate(1.0, 100), LearningRate(1.0, 100, clock="examples")
    assert by_steps(400, 10) == pytest.approx(0.5)
    assert by_examples(4, 400) == pytest.approx(0.5)
    assert LearningRate(1.0, 0, rampup=200)(50, 100) == pytest.approx(0.5)


class Spoilt:
    """A source whose first example has no finite target."""

    def __init__(self, source):
        self.source, self.draw = source, source.draw

    def complete(self, batch):
        spoilt = replace(batch, target=batch.target.clone())
        spoilt.target[0, 0, 0, 0] = float("nan")
        return spoilt


def test_gradients_that_are_not_finite_become_zero_or_stop_the_run():
    for rule in ("zero", "skip", "stop"):
        t = trainer(not_finite=rule)
        batch = t.selector.source.draw(40, generator(0, "x"))
        bad = Spoilt(t.selector.source).complete(batch)
        t.network(batch.x, batch.sigma, batch.label)  # normalises the weights
        weights = [p.detach().clone() for p in t.network.unet.dec.parameters()]
        if rule == "stop":
            t.step()
            before = {k: v.clone() for k, v in t.state()[0].items()}
            t.selector.source = Spoilt(t.selector.source)
            with pytest.raises(Diverged):
                t.step()
            assert all(torch.equal(v, before[k]) for k, v in t.state()[0].items())
            continue
        t.learner.step(t.learner.gradients(bad, 0.01)[1])
        assert all(p.isfinite().all() for p in t.network.parameters())
        assert all(
            torch.allclose(a, b, atol=1e-3) for a, b in zip(weights, t.network.unet.dec.parameters(), strict=True)
        )


def test_training_learns():
    t = trainer(learning_rate=LearningRate(0.03, 0))
    losses = [t.step().loss for _ in range(40)]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_a_run_that_is_cut_off_ends_with_the_same_bits_and_may_end_by_time(tmp_path):
    class Cut(Exception):
        pass

    task = small_images()
    arm = arms_named(("baseline",))[0]
    config = RunConfig(task, "learner", RECIPE, arm, 0, 100)
    costs = {"uniform": {"update": 1.5}}
    schedule = Schedule({"calibrated": (4.5, 9.0)}, costs, checkpoint_every=2, end=("calibrated", 9.0))
    assert execute(tmp_path / "a", config, schedule) == "done"
    assert read_status(tmp_path / "a")["step"] == 6
    assert sorted(snapshots(tmp_path / "a")) == [3, 6]

    def cut(step, _):
        if step == 5:
            raise Cut

    with pytest.raises(Cut):
        execute(tmp_path / "b", config, schedule, progress=cut)
    assert execute(tmp_path / "b", config, schedule) == "done"
    last = [checkpoint.latest(tmp_path / name, "checkpoint", print).tensors for name in "ab"]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(last[0][k], last[1][k]) for k in last[0])


def test_arms_of_the_tree_count_their_examples_too():
    from conftest import small_task

    networks = Networks(small_task().network("learner", 0))
    t = Trainer(small_task().source("cpu"), networks, small_recipe(), ARMS["random"], Streams(0))
    t.step()
    assert int(t.example_counts.drawn.sum()) == int(t.example_counts.trained.sum()) == 51


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of what the compiler itself imports
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler, and there is no g++ here")
def test_a_compiled_network_answers_as_a_plain_one(tmp_path, monkeypatch):
    """For real; that it also learns so takes minutes, and is in test_compiling."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    small = Architecture(channels=4, multipliers=(1,), blocks=1, attention=())
    found, names = {}, []
    for compiled in (False, True):
        task = small_images(learner=small, compile=compiled)
        network = task.network("learner", 0).eval().requires_grad_(False)
        network.unet.out_gain.fill_(0.7)
        batch = task.source("cpu").draw(4, generator(0, "x"))
        found[compiled] = network(batch.x, batch.sigma, batch.label)
        names.append(set(network.state_dict()))
    assert names[0] == names[1]
    torch.testing.assert_close(found[True], found[False], rtol=1e-3, atol=1e-3)


def test_dropout_draws_from_the_seeds_own_stream():
    """Whatever else draws from torch's generator, which is left as it was: a restored run drops what it would have."""
    dropping = Architecture(channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.5)

    def made():
        task = small_images(learner=dropping)
        t = Trainer(task.source("cpu"), Networks(task.network("learner", 0)), RECIPE, ARMS["baseline"], Streams(0))
        t.network.unet.out_gain.data.fill_(1.0)
        return t

    unbroken, cut = made(), made()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    losses = [unbroken.step().loss for _ in range(4)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert [cut.step().loss for _ in range(2)] == losses[:2]
    resumed = made()
    resumed.restore(*cut.state())
    torch.manual_seed(3)
    assert [resumed.step().loss for _ in range(2)] == losses[2:]
    batch = unbroken.selector.source.draw(40, generator(0, "x"))
    first, other = (made() for _ in range(2))
    other.steps_taken = 1
    for t in (first, other):
        t.selector.source.draw = lambda *_: batch
    assert first.step().loss != other.step().loss  # each step drops others
