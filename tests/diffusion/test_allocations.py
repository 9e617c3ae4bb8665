"""Noise levels that are drawn by losses: densities against closed forms, what is remembered of them."""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import LogNormal, edm_weight
from ajest.diffusion.noising import ALLOCATIONS, Allocation, Noising, noised
from ajest.diffusion.noising.allocations import BINS, Profile, Seen, bin_of, exact_error, spread
from ajest.diffusion.noising.levels import LIMIT, Table, middles
from ajest.diffusion.noising.noising import own_log_density
from ajest.errors import UserError
from ajest.runtime.seeding import Streams, generator
from ajest.selection import ARMS, Arm, register_allocation
from ajest.selection.flow import Networks
from ajest.selection.seen_levels import SeenLevels
from ajest.tasks.sources import TensorSource
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe, small_task

S = 0.5
CENTRES = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (2 * LIMIT / BINS) - LIMIT


def gaussian():
    """Normal data of standard deviation S, of which the best denoiser is known."""

    def exact(x, sigma, label=None):
        return x * (S**2 / (S**2 + sigma[:, None].square()))

    x = S * torch.randn(4000, 8, generator=generator(0))
    return TensorSource(x, LogNormal(-1.2, 1.2), S, exact=exact)


def mmse(r):
    """Of a coordinate, E (x0 - E[x0 | x])^2 = s^2 sigma^2 / (s^2 + sigma^2); the mean of its square over 8 of them."""
    error = S**2 * r.square() / (1 + r.square())
    return Seen(error, error.square() * (1 + 2 / 8), error)


def test_the_exact_error_is_the_closed_form():
    found, expected = exact_error(gaussian()), mmse(CENTRES.exp())
    for part in ("error", "square"):
        torch.testing.assert_close(getattr(found, part), getattr(expected, part), rtol=0.08, atol=0)


def density_of(table):
    return table.logs.exp()


def test_infonoise_is_mmse_over_what_weights_do_with_its_gate():
    own, x = gaussian(), middles()
    noising = Noising(allocation=Allocation("infonoise", exact=True, rest=0.0))
    r = x.exp()
    gate = r**3 / (r**3 + 0.3**3)
    sigma = S * r
    reached = (sigma.log() + 1.2).abs() < 1.2 * stats.norm.ppf(0.995)
    expected = Table.of((reached * mmse(r).error * gate * S**2 / (sigma.square() + S**2)).log())
    apart = (density_of(noising.table(own)) - density_of(expected)).abs().sum() / density_of(expected).sum()
    assert apart < 0.05
    assert noising.moved(own) > 0.1
    assert noising.table(own).quantile(torch.tensor([0.5], dtype=torch.float64)).exp() < 1.5


def test_infonoise_draws_no_pure_noise_where_the_weight_falls_as_the_noise_grows():
    """On the tree, whose weight is 1 / sigma^2: what the gate leaves of the error never falls towards large levels."""
    task = small_task(target="x0")
    own = task.source("cpu")
    for exact in (True, False):
        noising = Noising(allocation=Allocation("infonoise", exact=exact))
        table = noising.table(own, None if exact else mmse(CENTRES.exp()))
        levels = own.sigma_data * table.quantile(torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)).exp()
        assert (levels > task.sigma_max).double().mean() < 0.01
        assert 0.2 < levels.median() < 2


@pytest.mark.parametrize("name", ["second-moment", "first-moment"])
def test_importance_sampling_leaves_the_objective(name):
    own = gaussian()
    noising = Noising(allocation=Allocation(name, rest=0.0), same_objective=True)
    seen = mmse(CENTRES.exp())
    # Of the best denoiser of normal data EDM's weight makes the same loss at every level, and nothing is left to do.
    assert replace(noising, same_objective=False).moved(own, seen) < 1e-3
    error = seen.error * (1 + CENTRES.exp())
    seen = Seen(error, error.square(), error)
    assert noising.moved(own, seen) < 1e-9
    assert noising.moved(own) == 0
    assert replace(noising, same_objective=False).moved(own, seen) > 0.01
    x = CENTRES[(CENTRES > -3) & (CENTRES < 3)]
    table = noising.table(own, seen)
    loss = noising.weights(x, S * x.exp(), own, table) * mmse(x.exp()).error * (1 + x.exp())
    if name == "first-moment":  # all levels have the same mean loss
        torch.testing.assert_close(loss / loss.mean(), torch.ones_like(loss), rtol=0.02, atol=0)


def test_the_second_moment_gives_the_least_variance():
    x = middles()
    r, own = x.exp(), gaussian()
    density = own_log_density(x, own).exp()
    square = mmse(r).error.square() * (2 + torch.sin(3 * x))  # not the same spread at every level
    known = Profile(r, density, edm_weight(S * r, S), mmse(r).error, square, mmse(r).error)
    moments = {}
    for name in ("second-moment", "first-moment", "speed"):
        p = density_of(Allocation(name, rest=0.0).table(known))
        p, before = p / p.sum(), density / density.sum()
        moments[name] = (before.square() * known.weight.square() * square / p).sum()
    assert moments["second-moment"] == min(moments.values())
    expected = ((density / density.sum()) * known.weight * square.sqrt()).sum().square()
    torch.testing.assert_close(moments["second-moment"], expected)


def test_progress_draws_by_a_beta_density_of_where_the_loss_falls():
    """Where it falls between the shares 0.5 and 1 of the levels, evenly, a draw has mean 3/4 and variance 1/48, as
    Beta(6, 2); exponents are 5 at most."""
    own = TensorSource(torch.zeros(50, 2), LogNormal(-1.2, 1.2), S)
    own.weight = torch.ones_like
    error = torch.ones(BINS, dtype=torch.float64)
    middle = torch.log(torch.tensor(torch.e**-1.2 / S))
    seen = Seen(error, error, 1 + (middle < CENTRES).double())
    table, same = (
        Noising(allocation=Allocation("progress", (strength,), rest=0.0)).table(own, seen) for strength in (1.0, 0.0)
    )
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    law = torch.special.ndtr((table.quantile(u) + torch.tensor(S).log() + 1.2) / 1.2)
    expected = stats.beta(5, 2).ppf(u)
    assert (law - torch.tensor(expected)).abs().max() < 0.02
    torch.testing.assert_close(density_of(same), density_of(Table.of(own_log_density(middles(), own))))


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", [n for n, rule in ALLOCATIONS.items() if rule.reads != "nothing"])
def test_nothing_to_go_by_leaves_the_density(name, bad):
    own = gaussian()
    noising = Noising(allocation=Allocation(name), target="x0")
    values = torch.full((BINS,), bad)
    before = density_of(Table.of(own_log_density(middles(), own)))
    torch.testing.assert_close(density_of(noising.table(own, Seen(values, values, values))), before)
    flat = noising.table(own, Seen(*torch.ones(3, BINS)))
    assert flat.logs.isfinite().all()


def test_a_rest_is_drawn_as_before():
    own, seen = gaussian(), mmse(CENTRES.exp())
    tables = [Noising(allocation=Allocation("first-moment", rest=rest)).table(own, seen) for rest in (0.0, 0.25)]
    before = own_log_density(middles(), own).exp()
    torch.testing.assert_close(
        density_of(tables[1]), 0.75 * density_of(tables[0]) + 0.25 * before, rtol=1e-4, atol=1e-6
    )


def test_errors_are_remembered_by_level_whatever_the_weights():
    source = noised(gaussian(), Noising(allocation=Allocation("infonoise", warmup=0.75, every=1.0)), 4000)
    seen = SeenLevels(source)
    before = source.draw(100, generator(1)).sigma
    for step in range(4):
        batch = source.draw(4000, generator(2, step))
        error = (source.exact(batch.x, batch.sigma) - batch.target).square().mean(1)
        if step == 3:
            assert torch.equal(source.draw(100, generator(1)).sigma, before)
        seen.learn(step / 4, batch, error * batch.weight)
    after = source.draw(100, generator(1)).sigma
    assert not torch.equal(after, before)
    x = CENTRES[bin_of(torch.tensor([-3.0, -1.0, 0.0, 1.0]))]
    found, _ = seen._seen.means()
    torch.testing.assert_close(found[bin_of(x)].double(), mmse(x.exp()).error, rtol=0.1, atol=0)
    torch.testing.assert_close(spread(found)[3000].item(), found[int(3000 / 64)].item(), rtol=0.2, atol=0)
    # Another that goes on from there draws the same; one that had seen nothing draws as at first.
    other = noised(gaussian(), source.noising, 4000)
    restored = SeenLevels(other)
    restored.restore({name: tensor.clone() for name, tensor in seen.state().items()})
    assert torch.equal(other.draw(100, generator(1)).sigma, after)
    restored.restore({name: tensor * 0 for name, tensor in seen.state().items()})
    assert torch.equal(other.draw(100, generator(1)).sigma, before)


def trainer(name, **how):
    arm = ARMS[name]
    noising = replace(arm.noising, allocation=replace(arm.noising.allocation, warmup=0.1, every=0.2, **how))
    task = small_task()
    arm = replace(arm, noising=noising)
    return Trainer(task.source("cpu"), Networks(task.network("learner", 0)), small_recipe(), arm, Streams(0))


def steps(trainer, count):
    """The losses of so many steps, of ten that make a run."""
    losses = []
    for _ in range(count):
        trainer.progress = trainer.steps_taken / 10
        losses.append(trainer.step().loss)
    return losses


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.noising.learns])
def test_levels_follow_the_losses_of_a_short_run_as_well(name):
    """An arm that never looks, or looks when all is over, would be judged for what it does not do."""
    task = small_task(gain_sign="negative", target="x0")
    networks = Networks(task.network("learner", 0))
    short = Trainer(task.source("cpu"), networks, small_recipe(), ARMS[name], Streams(0))
    before = short.selector.source.draw(4000, generator(1)).sigma
    seen = []
    for step in range(40):
        short.progress = step / 40
        short.step()
        seen.append(short.selector.state()["noise levels/looks"].item())
    assert len(set(seen)) == 19  # none, and one after every twentieth of what a warm-up of a tenth leaves
    assert seen.index(1) == 4
    moved = (short.selector.source.draw(4000, generator(1)).sigma / before).log().abs().mean()
    assert moved < 1e-3 if name == "adaptive-beta-control" else moved > 0.02


@pytest.mark.parametrize("name", ["second-moment", "first-moment", "infonoise", "adaptive-beta"])
def test_a_run_goes_on_bit_for_bit_from_between_two_looks(name):
    whole, part, again = (trainer(name) for _ in range(3))
    losses = steps(whole, 7)
    found = steps(part, 3)
    tensors, facts = part.state()
    again.restore({key: value.clone() for key, value in tensors.items()}, facts)
    found += steps(again, 4)
    assert found == losses
    for key, value in whole.state()[0].items():
        assert torch.equal(again.state()[0][key], value), key
    plain = trainer(name, rest=0.5)
    assert steps(plain, 7)[:2] == losses[:2]


def test_a_loss_that_is_not_finite_is_not_remembered():
    t = trainer("second-moment")
    choice = t.selector.choose(0, 0.0, t.ledger.phase)
    losses = torch.ones(256)
    losses[3] = torch.nan
    t.selector.learn(choice, losses, None, finite=False)
    sums = t.selector.state()["noise levels/seen"]
    assert sums.isfinite().all()
    assert sums[0].sum() == pytest.approx(255)


REFUSED = {
    'set target to "x0" without references, or exact': lambda: noised(
        small_task().source("cpu"), Noising(allocation=Allocation("infonoise")), 64
    ),
    "exact denoiser of these data is not known": lambda: noised(
        small_images().source("cpu"), ARMS["infonoise-mmse"].noising, 64
    ),
    "it reads no error: leave out exact": lambda: Allocation("speed", exact=True),
    "are shares of the run": lambda: Allocation("infonoise", every=0),
    "at least 0 and above 0, not above 1": lambda: Allocation("infonoise", warmup=200, every=100),
    "below 1, not 1": lambda: Allocation("infonoise", rest=1),
    "unknown allocation 'infonoize'.*infonoise": lambda: Allocation("infonoize"),
    "trains on a part that it chooses": lambda: Arm(
        "a", "hard", keep=0.2, noising=Noising(allocation=Allocation("first-moment"))
    ),
    "must be at least 0, not 0 everywhere": lambda: register_allocation("none", lambda known: -known.density),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_contradicts_itself_is_refused(why):
    with pytest.raises(UserError, match=why):
        REFUSED[why]()


def test_an_allocation_of_the_user_s_own():
    try:
        register_allocation("above", lambda known, low=0.1: (known.r > low) * known.density)
        table = Noising(allocation=Allocation("above", (0.5,))).table(gaussian())
        u = torch.tensor([1e-6, 0.5], dtype=torch.float64)
        assert table.quantile(u)[0].exp().item() == pytest.approx(0.5, rel=1e-2)
        register_allocation("by-error", lambda known: known.error, reads="error")
        assert Noising(allocation=Allocation("by-error"), target="x0").learns
    finally:
        for name in ("above", "by-error"):
            ALLOCATIONS.pop(name, None)


def test_a_batch_of_zero_weight_says_nothing_wrong():
    source = noised(gaussian(), Noising(allocation=Allocation("first-moment", warmup=0, every=1)), 64)
    batch = source.draw(64, generator(1))
    nothing = Batch(batch.x, batch.sigma, batch.weight * 0, batch.id, batch.target)
    SeenLevels(source).learn(0, nothing, torch.zeros(64))
    assert source.draw(64, generator(2)).sigma.isfinite().all()
