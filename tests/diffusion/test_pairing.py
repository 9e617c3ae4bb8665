"""Pairings of noise and examples, and several noised copies of an example."""

import itertools
from dataclasses import replace

import pytest
import torch
from scipy import stats
from test_noising import SOURCES, strata_of

from ajest.diffusion.noising import PAIRINGS, Noising, Pairing, noised
from ajest.diffusion.noising.ingredients import Ingredients
from ajest.errors import UserError
from ajest.runtime.seeding import Streams, generator
from ajest.selection import ARMS, load_rules
from ajest.training.networks import sampled
from ajest.training.run_folder import RunConfig
from conftest import small_recipe, small_task

ASSIGNMENT = Noising(target="x0", pairing=Pairing("assignment", among=20))
NEAREST = Noising(target="x0", pairing=Pairing("nearest", candidates=4))
REPLACED = Noising(target="x0", pairing=Pairing("assignment", among=20, with_replacement=True))
COPIES = Noising(copies=4, stratified=True)
ALL = {
    "assignment": ASSIGNMENT,
    "nearest": NEAREST,
    "replaced": REPLACED,
    "copies": COPIES,
    "copies paired": replace(ASSIGNMENT, copies=2),
}


def distances(x0, noise):
    return (x0[:, None] - noise[None]).square().sum(-1)


def eps_of(batch):
    return (batch.x - batch.target) / batch.sigma.view(-1, *[1] * (batch.x.dim() - 1))


def test_an_assignment_has_the_least_sum_of_squared_distances():
    x0, noise = torch.randn(2, 6, 3, generator=generator(0))
    index = PAIRINGS["assignment"](x0, noise[:, None])
    distance = distances(x0, noise)
    sums = [sum(distance[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(6))]
    assert distance[torch.arange(6), index].sum().item() == pytest.approx(min(sums).item(), rel=1e-5)
    assert index.sort().values.tolist() == list(range(6))


def test_the_nearest_of_own_noises_is_the_nearest():
    x0, noise = torch.randn(50, 3, generator=generator(1)), torch.randn(50, 4, 3, generator=generator(2))
    index = PAIRINGS["nearest"](x0, noise)
    expected = (noise - x0[:, None]).square().sum(-1).argmin(1)
    assert torch.equal(index, torch.arange(0, 200, 4) + expected)


def test_most_of_what_nearest_gains_is_length_and_the_control_has_that_alone():
    """In d dimensions E|e|^2 falls by m 2 d / sqrt(2 d + 4 |x|^2), m the mean of the largest of k normal numbers."""
    n, d = 4000, 256
    x0, eps = torch.randn(2, n, d, generator=generator(3))
    parts = Ingredients(x0, eps, eps[:, 0], torch.arange(n))
    pairing = Pairing("nearest", candidates=4)
    found = {
        norms: replace(pairing, norms_only=norms).paired(parts, torch.randn(n, 4, d, generator=generator(4)), 1).eps
        for norms in (False, True)
    }
    squares = x0.square().sum(1)
    expected = d - (1.0294 * 2 * d / (2 * d + 4 * squares).sqrt()).mean()
    for given in found.values():
        assert given.square().sum(1).mean().item() == pytest.approx(expected.item(), abs=1.5)
    torch.testing.assert_close(found[True].norm(dim=1), found[False].norm(dim=1))
    torch.testing.assert_close(torch.cosine_similarity(found[True], eps), torch.ones(n))
    aligned = [(given * x0).sum(1).mean().item() for given in (found[False], found[True])]
    assert aligned[0] > 10
    assert abs(aligned[1]) < 1.5


@pytest.mark.parametrize("name", SOURCES)
def test_an_assignment_hands_the_same_noise_to_other_examples_of_the_class(name):
    own = SOURCES[name]()
    plain, paired = (noised(own, n, 60).draw(60, generator(5)) for n in (Noising(target="x0"), ASSIGNMENT))
    for part in ("sigma", "id", "target", "weight"):
        assert torch.equal(getattr(plain, part), getattr(paired, part))
    before, after = (eps_of(batch).flatten(1) for batch in (plain, paired))
    given = torch.cdist(after, before).argmin(1)
    torch.testing.assert_close(after, before[given], atol=1e-2, rtol=1e-2)
    assert torch.equal(given.sort().values, torch.arange(60))
    assert torch.equal(given // 20, torch.arange(60) // 20)
    if plain.label is not None:
        assert torch.equal(plain.label, plain.label[given])
    clean = plain.target.flatten(1)
    assert (clean - after).square().sum() < (clean - before).square().sum()


def test_pairs_of_optimal_transport_are_those_of_the_assignment_with_replacement():
    own = SOURCES["vectors"]()
    assigned, replaced = (noised(own, n, 60).draw(60, generator(6)) for n in (ASSIGNMENT, REPLACED))
    pairs = torch.cat([assigned.target, eps_of(assigned)], 1)
    distance, which = torch.cdist(torch.cat([replaced.target, eps_of(replaced)], 1), pairs).min(1)
    assert distance.max() < 1e-2
    assert torch.equal(which // 20, torch.arange(60) // 20)
    assert 30 < len(which.unique()) < 50  # 60 (1 - 1 / e) are expected
    for part in ("id", "label"):
        assert torch.equal(getattr(replaced, part), getattr(assigned, part)[which])
    assert torch.equal(replaced.sigma, assigned.sigma)


@pytest.mark.parametrize("how", ALL)
@pytest.mark.parametrize("name", ["tree", "vectors"])
def test_any_process_draws_the_same_rows_on_the_device(name, how):
    source = noised(SOURCES[name](), ALL[how], 60)
    streams = Streams(3, drawing="device")
    stream, eps = streams.counter("draw", 0), streams.counter("noise", 0)
    whole, known = source.draw_rows(range(60), stream, eps), source.outline(range(60), stream)
    for part in ("sigma", "id", "weight"):
        assert torch.equal(getattr(whole, part), getattr(known, part))
    for rows in (range(13, 35), torch.tensor([59, 3, 3, 22, 41])):
        part, index = source.draw_rows(rows, stream, eps), torch.as_tensor(rows)
        for field in ("sigma", "id", "x"):
            torch.testing.assert_close(getattr(part, field), getattr(whole, field)[index], rtol=0, atol=0)


@pytest.mark.parametrize("how", ALL)
@pytest.mark.parametrize("name", SOURCES)
def test_a_smaller_draw_is_a_part_of_the_larger(name, how):
    source = noised(SOURCES[name](), ALL[how], 60)
    whole, part = source.draw(60, generator(5)), source.draw(13, generator(5))
    assert torch.equal(whole.sigma[:13], part.sigma)
    assert torch.equal(whole.x[:13], part.x)
    other = source.draw(60, generator(5), generator(6))
    assert torch.equal(whole.sigma, other.sigma)
    assert not torch.isclose(whole.x.flatten(1), other.x.flatten(1)).all(1).any()


@pytest.mark.parametrize("drawing", ["host", "device"])
def test_copies_of_an_example_have_levels_and_noise_of_their_own(drawing):
    own, n = SOURCES["vectors"](), 60
    streams = Streams(3, drawing=drawing)

    def drawn(noising, step):
        source = noised(own, noising, n)
        if drawing == "host":
            return source.draw(n, streams.generator("draw", step))
        return source.draw_rows(range(n), streams.counter("draw", step), streams.counter("noise", step))

    plain = [drawn(Noising(copies=4), step) for step in range(40)]
    first = drawn(Noising(), 0)
    assert torch.equal(plain[0].id, first.id[:15].repeat_interleave(4))
    eps = torch.stack([eps_of(batch) for batch in plain]).view(-1, 4, 3)
    z = torch.stack([(batch.sigma.log() - own.noise.mean) / own.noise.std for batch in plain]).view(-1, 4)
    assert stats.kstest(z.flatten(), "norm").pvalue > 1e-3
    for values in (eps[..., 0], z):
        assert (torch.corrcoef(values.T) - torch.eye(4)).abs().max() < 4.5 / len(values) ** 0.5
    strata = torch.stack([strata_of(drawn(COPIES, step), own, n) for step in range(40)])
    assert (strata.sort(1).values != torch.arange(n)).double().mean() < 0.002
    # Each of an example's four levels is in another quarter of the levels.
    assert ((strata.view(40, 15, 4) // 15) != torch.arange(4)).double().mean() < 0.002


def test_nothing_is_paired_with_conditions_that_are_no_classes():
    parts = Ingredients(torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4), torch.arange(4), torch.zeros(4, 3))
    with pytest.raises(UserError, match="take a pairing of each example alone"):
        Pairing("assignment", among=4).paired(parts, torch.zeros(4, 1, 2), 4)


def run_of(arm, **task):
    return RunConfig(small_task(**task), "learner", small_recipe(), arm, 0, 8)


class NoisySampler(type(small_task())):
    """A task whose sampler adds noise on the way."""

    sampled_from = None


REFUSED = {
    "leave nothing to choose": lambda: Pairing("nearest"),
    "set among": lambda: Pairing("nearest", candidates=2, with_replacement=True),
    "unknown pairing 'nearst'.*nearest": lambda: Pairing("nearst", candidates=2),
    "leave out the pairing or them": lambda: replace(NEAREST, references=4),
    'set target to "x0"': lambda: noised(SOURCES["tree"](), replace(NEAREST, target=None), 64),
    "at least 1 copy": lambda: Noising(copies=0),
    "62 is no whole number of examples with 4 copies": lambda: noised(SOURCES["tree"](), COPIES, 62),
    "from only 10 times sigma_data begins at other points.*--sigma-max": lambda: run_of(ARMS["assignment"]),
    "adds no noise, without --churn": lambda: run_of(ARMS["assignment"], sigma_max=80.0, churn=10.0),
    "whose `sampled_from` says so": lambda: RunConfig(
        NoisySampler(), "learner", small_recipe(), ARMS["nearest-4"], 0, 8
    ),
    "a sampler that starts from only 10": lambda: sampled(
        None, run_of(ARMS["assignment"], sigma_max=80.0), small_task()
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_contradicts_itself_is_refused(why):
    with pytest.raises(UserError, match=why):
        REFUSED[why]()


def test_a_sampler_that_starts_far_enough_out_is_taken():
    assert run_of(ARMS["assignment"], sigma_max=25.0).arm.axis == "target, pairing"
    assert ARMS["levels-4"].axis == "noise levels"


def test_a_pairing_of_the_user_s_own(tmp_path):
    before = dict(PAIRINGS), dict(ARMS)
    path = tmp_path / "far.py"
    path.write_text(
        """
import torch
from ajest.diffusion.noising import Noising, Pairing
from ajest.selection import Arm, register_arm, register_pairing

def farthest(x0, noise, power=2.0):
    n, k, _ = noise.shape
    return torch.arange(0, n * k, k) + (noise - x0[:, None]).norm(dim=2).pow(power).argmax(1)

register_pairing("farthest", farthest)
register_arm(Arm("far", "uniform", noising=Noising(target="x0", pairing=Pairing("farthest", candidates=3))))
"""
    )
    try:
        assert load_rules(path) == ARMS["far"].rules
        far = noised(SOURCES["tree"](), ARMS["far"].noising, 64).draw(64, generator(1))
        near = noised(SOURCES["tree"](), replace(NEAREST, pairing=Pairing("nearest", candidates=3)), 64)
        apart = [(eps_of(b) - b.target).norm(dim=1) for b in (far, near.draw(64, generator(1)))]
        assert (apart[0] >= apart[1] - 1e-3).all()
        path.write_text(
            "from ajest.selection import register_pairing\nregister_pairing('one', lambda x0, noise: x0[:, 0])"
        )
        with pytest.raises(UserError, match="must give the number of a noise for each example"):
            load_rules(path)
    finally:
        for known, old in zip((PAIRINGS, ARMS), before, strict=True):
            known.clear()
            known.update(old)


def test_what_comes_next_is_read_ahead_as_it_will_be_drawn():
    asked = []

    class Ahead(type(SOURCES["vectors"]())):
        def expect(self, rows, stream):
            asked.append(rows)

    own = SOURCES["vectors"]()
    assert noised(own, COPIES, 60).expect is None
    own.__class__ = Ahead
    noised(own, COPIES, 60).expect(range(60), generator(1))
    noised(own, ASSIGNMENT, 60).expect(range(15, 30), generator(1))
    assert asked == [range(15), range(40)]
