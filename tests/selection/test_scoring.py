"""What scoring costs, in which mode networks are scored, and in which precision scores are chosen by."""

import copy
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch

from ajest import POLICIES, Batch, Scores, score, select
from ajest.bench.plan.presets import IMAGES, TREE
from ajest.runtime.seeding import Streams
from ajest.selection.catalogue import ARMS, arms_named
from ajest.selection.counts import Counts
from ajest.selection.diagnostics import diagnose
from ajest.selection.features import score_with_features
from ajest.selection.flow import Networks
from ajest.selection.gumbel import inclusion
from ajest.study.presets import IMAGES as IMAGE_STUDIES
from ajest.study.presets import TREE as TREE_STUDIES
from ajest.tasks.images.architecture import Architecture
from ajest.training.recipe import Recipe
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe, small_task

HALF = (torch.bfloat16, torch.float16)


# What is counted


class Watched:
    """Counts what a trainer draws and what its networks see, apart from its own books."""

    def __init__(self, trainer):
        self.drawn, self.scored, self.trained, self.trainer = 0, Counter(), Counter(), trainer
        selector = trainer.selector
        self.size = selector.source.draw(1, torch.Generator()).x.numel()
        networks = vars(selector.networks)
        self.networks = {name: network for name, network in networks.items() if network is not None}
        for name, network in self.networks.items():
            network.flops()  # which may count on a copy
            network.register_forward_hook(lambda module, inputs, output, name=name: self._see(name, inputs[0]))
        draw = selector.source.draw

        def drawing(count, generator, eps=None):
            self.drawn += count * (eps is None)
            return draw(count, generator, eps)

        selector.source.draw = drawing

    def _see(self, name, x):
        seen = self.trained if torch.is_grad_enabled() else self.scored
        seen[name] += len(x)
        assert x[0].numel() * (4 if self.trainer.arm.scoring.half and seen is self.scored else 1) == self.size

    def counts(self):
        return Counts(self.drawn, max(self.scored.values(), default=0), self.trained["learner"])

    def flops(self):
        """Of what was seen: a score or a sketch, at a quarter of the pixels or all, and thrice a pass in training."""
        how, reads = self.trainer.arm.scoring, self.trainer.arm.registered.needs
        total = 0.0
        for name, network in self.networks.items():
            sketched = name == "learner" and "features" in reads and how.features == "gradient"
            price = network.sketch_flops() if sketched else network.flops()
            total += self.scored[name] * price / (4 if how.half else 1) + 3 * self.trained[name] * network.flops()
        return total


def watched(arm, seed=0):
    images = arm.scoring.half
    task = small_images() if images else small_task()
    recipe = Recipe(160, micro_batch=64) if images else small_recipe()
    role = "learner" if arm.reference == "strong" else "guide"
    reference = task.network(role, 5).eval() if arm.reference in ("guide", "strong") else None
    reference = task.exact_denoiser() if arm.reference == "exact" else reference
    proxy = task.network("guide", seed) if arm.scoring.scorer == "proxy" else None
    source = copy.copy(task.source("cpu"))
    networks = Networks(task.network("learner", seed), reference, proxy)
    return Watched(Trainer(source, networks, recipe, arm, Streams(seed)))


@pytest.mark.parametrize("name", sorted(ARMS))
def test_the_ledger_counts_what_any_network_scored(name):
    seen = watched(ARMS[name])
    for _ in range(9 if ARMS[name].memory else 2):  # stale arms score on the first and on the ninth
        seen.trainer.step()
    assert seen.trainer.ledger.counts == seen.counts()
    assert seen.trainer.ledger.flops == pytest.approx(seen.flops(), rel=1e-12)
    assert (seen.counts().scored > 0) == (ARMS[name].measures or ARMS[name].trigger.compares)


# Arms of a preset differ in one thing


def benches():
    yield from ((name, make()) for name, make in TREE.items())
    for name, dials in IMAGES.items():
        yield name, dials.bench(small_images())
        yield f"{name}, a third", replace(dials.bench(small_images()), arms=dials.arms(keep=0.33))
    studies = {f"study {n}": make() for n, make in TREE_STUDIES.items()}
    studies |= {f"image study {n}": make(small_images()) for n, make in IMAGE_STUDIES.items()}
    for name, study in studies.items():
        for stage in ("screening", "dials", "final"):
            yield from ((f"{name} {stage} {end}", bench) for end, bench in study.stage(stage).items())


def test_arms_that_keep_the_same_fraction_keep_the_same_number():
    for name, bench in benches():
        kept = defaultdict(set)
        for arm in bench.arms:
            kept[arm.keep].add(arm.kept(bench.recipe.super_batch))
        assert all(len(counts) == 1 for counts in kept.values()), (name, dict(kept))
        assert kept.keys() == {a.keep for a in bench.arms}


def test_parts_of_a_super_batch_share_what_is_kept():
    """As evenly as can be: 410 of 2,048 are 25 or 26 of each 128."""
    (arm,) = arms_named(("ajest",), chunks=8, within=128)
    assert arm.kept(2048) == round(0.2 * 2048) == 410
    learner, reference = torch.randn(2, 2048, generator=torch.Generator().manual_seed(0))
    chosen = arm.choose()(Scores(learner, reference), 410, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == 410
    assert torch.bincount(chosen // 128).tolist() == [26] * 10 + [25] * 6


# The mode in which networks are scored


class Dropping(torch.nn.Module):
    """A denoiser with dropout and running statistics, and a part that is frozen in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop, self.last = torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2)
        self.frozen = torch.nn.Dropout(0.5).eval()
        self.modes = []

    def forward(self, x, sigma, label=None):
        self.modes.append(self.training)
        return self.last(self.frozen(self.drop(self.norm(torch.cat([x, sigma[:, None]], 1)))))

    def sketched(self, x, sigma, label, target, weight):
        denoised = self(x, sigma, label)
        return denoised, denoised - target


class Unconditional(torch.nn.Module):
    """A denoiser that does not look at the noise level."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, sigma, label=None):
        return self.network(x)


def points(n=64, dtype=torch.float32):
    numbers = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, n, 2, generator=numbers)
    sigma = torch.rand(n, generator=numbers) + 0.1
    return Batch((x0 + sigma[:, None] * eps).to(dtype), sigma.to(dtype), (sigma**-2).to(dtype), torch.arange(n), x0)


@pytest.mark.parametrize("how", ["score", "residual", "gradient"])
def test_networks_are_scored_in_evaluation_mode_and_go_on_in_their_own(how):
    torch.manual_seed(0)
    learner, batch = Dropping().train(), points()
    learner.frozen.eval()
    reference = copy.deepcopy(learner).eval()

    def scored(network):
        return score(network, batch) if how == "score" else score_with_features(network, batch, how)[0]

    assert torch.equal(scored(learner), scored(reference))
    assert [m.training for m in learner.modules()] == [True, True, True, True, False]
    assert not any(m.training for m in reference.modules())
    assert learner.norm.num_batches_tracked == 0
    assert learner.modes == [False]
    with pytest.raises(RuntimeError):
        score(learner, replace(batch, x=batch.x[:, :1]))
    assert learner.training
    assert learner.drop.training


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of what the compiler itself imports
def test_a_compiled_network_is_compiled_once_for_each_mode():
    """Going back and forth between scoring and training compiles nothing anew."""
    graphs, batch = [], points()
    network = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 2)).train()
    fast = torch.compile(network, backend=lambda module, inputs: graphs.append(module) or module.forward)
    scored = []
    for _ in range(4):
        scored.append(score(Unconditional(fast), batch))
        fast(batch.x).sum().backward()
        assert network[0].training
    assert all(torch.equal(losses, scored[0]) for losses in scored)
    assert len(graphs) == 2


@pytest.mark.parametrize("name", ["ajest", "jest-ema", "proxy", "joint-residual", "late-ajest"])
def test_dropout_acts_in_training_and_not_in_scoring(name):
    """Of networks with dropout too: a learner scored against itself has no advantage, and trains with dropout."""
    task = small_images(learner=Architecture(channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.5))
    arm = replace(ARMS[name], chunks=4, strata=None if ARMS[name].policy != "hard" else 4)
    network, reference = task.network("learner", 0), task.network("learner", 0)
    for module in (network, reference):
        module.unet.out_gain.data.fill_(1.0)
    proxy = task.network("learner", 0) if arm.scoring.scorer == "proxy" else None
    networks, recipe = Networks(network, reference, proxy), Recipe(40, ema_widths=(0.1,))
    t = Trainer(task.source("cpu"), networks, recipe, arm, Streams(0))
    dropped = []
    real = torch.nn.functional.dropout

    def dropout(y, p, training):
        dropped.append((torch.is_grad_enabled(), training))
        return real(y, p, training)

    weights = {k: v.clone() for k, v in network.state_dict().items()}
    choice = t.selector.choose(0, 0.0, t.ledger.phase)
    assert all(torch.equal(v, weights[k]) for k, v in network.state_dict().items())  # nothing was re-normalised
    if name in ("ajest", "jest-ema"):
        assert torch.equal(choice.picked.scores.learner, choice.picked.scores.reference)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "dropout", dropout)
        t.step()
        diagnose(t.selector, 0, 0.0)
    assert all(training == grad for grad, training in dropped)
    assert (True, True) in dropped


def test_scoring_leaves_the_trees_weights_alone():
    network, source = small_task().network("learner", 0), small_task().source("cpu")
    batch = source.complete(source.draw(32, torch.Generator().manual_seed(0)))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    score(network.train(), batch)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


# Scores of any type


def rough_scores(size, dtype, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    learner, reference, sigma = torch.randn(3, size, generator=numbers).exp().to(dtype)
    features = torch.randn(size, 8, generator=numbers).to(dtype)
    running_stats = torch.stack([learner.float() * 0.9, torch.ones(size)], 1)
    return Scores(learner, reference, sigma, running_stats, features)


def as_type(scores, dtype):
    return Scores(*(part.to(dtype) for part in (scores.learner, scores.reference, scores.sigma)), scores.running_stats,
        scores.features.to(dtype))  # fmt: skip


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("how", ["none", "zscore", "rank", "running"])
def test_scores_of_half_precision_choose_as_the_same_numbers_in_float32(name, dtype, how):
    if how != "none" and "normalise" not in POLICIES[name].dials:
        return
    dials = {"normalise": how} if "normalise" in POLICIES[name].dials else {}
    scores = rough_scores(4096, dtype)
    rough, fine = (
        select(s, 819, name, torch.Generator().manual_seed(1), **dials)
        for s in (scores, as_type(scores, torch.float32))
    )
    assert torch.equal(rough, fine)
    assert len(set(rough.tolist())) == 819 or name == "proportional"


@pytest.mark.parametrize("dtype", [*HALF, torch.float32, torch.float64])
def test_draws_by_scores_of_any_type_are_distinct_and_as_likely_as_they_should_be(dtype):
    """All times of a race differ, so that the chance of each score is that of an exact race."""
    logits = torch.arange(8).repeat(512).to(dtype) / 4
    scores, generator = Scores(logits, sigma=torch.ones_like(logits)), torch.Generator().manual_seed(0)
    drawn = torch.zeros(8)
    for _ in range(40):
        chosen = select(scores, 819, "hard", generator, strata=1, normalise="none")
        assert len(set(chosen.tolist())) == 819
        drawn += torch.bincount(chosen % 8, minlength=8)
    expected = inclusion([(logits, 819)])[:8]
    torch.testing.assert_close((drawn / 40 / 512).double(), expected, rtol=0.05, atol=0.005)


@pytest.mark.parametrize("dtype", HALF)
def test_losses_are_taken_in_float32_whatever_the_network_computes_in(dtype):
    """Whole numbers above 256 and below one are what half precision rounds."""
    batch = points(dtype=dtype)
    batch = replace(batch, target=torch.full_like(batch.x, 0.3))
    losses = score(lambda x, sigma, label: torch.full_like(x, 1.1), batch)
    assert losses.dtype == torch.float32
    error = (torch.tensor(1.1, dtype=dtype).float() - torch.tensor(0.3, dtype=dtype).float()).square()
    torch.testing.assert_close(losses, batch.weight.float() * error, rtol=1e-6, atol=0)
