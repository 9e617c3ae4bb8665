"""Densities and weights against their closed forms, strata, targets between the clean and the exact one."""

import json
import math
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats

from ajest.diffusion.batch import Batch
from ajest.diffusion.denoising import LogNormal, edm_weight, objective, per_example_loss, score_weight
from ajest.diffusion.noising import DENSITIES, WEIGHTS, Allocation, Levels, Noising, Weighting, noised
from ajest.diffusion.noising.levels import LIMIT, ddpm_time
from ajest.diffusion.noising.noising import own_log_density
from ajest.diffusion.noising.targets import stable_target
from ajest.errors import UserError
from ajest.runtime.seeding import Streams, generator
from ajest.selection import ARMS, Arm, LossMemory, Scoring, load_rules
from ajest.selection.flow import Networks
from ajest.storage.config import from_json, to_json
from ajest.tasks.sources import TensorSource
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe, small_task

U = torch.tensor([1e-4, 0.01, 0.2, 0.5, 0.7, 0.99, 1 - 1e-4], dtype=torch.float64)
SOURCES = {
    "tree": lambda: small_task().source("cpu"),
    "images": lambda: small_images(flip=True, label_dropout=0.5).source("cpu"),
    "vectors": lambda: TensorSource(
        torch.randn(50, 3, generator=generator(0)), LogNormal(-1.2, 1.2), 0.7, torch.arange(50) % 4, "cpu", 0.5
    ),
}


@pytest.fixture
def tree():
    return SOURCES["tree"]()


CLOSED = {
    Levels("normal", -0.5, 1.2): stats.norm(-0.5, 1.2),
    Levels("laplace", 0.3, 0.25): stats.laplace(0.3, 0.25),
    Levels("cauchy", 0.0, 0.5): stats.cauchy(0, 0.5),
    Levels("sech", 0.0, 1.0): stats.hypsecant(),
    Levels("beta"): stats.logistic(),
    Levels("beta", math.log(3), 1.0): stats.logistic(math.log(3)),
}


@pytest.mark.parametrize("levels", CLOSED, ids=str)
def test_quantiles_and_densities_are_those_of_the_closed_form(levels):
    law = CLOSED[levels]
    low, high = law.cdf(-LIMIT), law.cdf(LIMIT)  # what lies beyond is left out
    expected = law.ppf(low + U.numpy() * (high - low))
    np.testing.assert_allclose(levels.table("cpu").quantile(U), expected, atol=2e-4, rtol=1e-4)
    np.testing.assert_allclose(
        levels.table("cpu").log_density(torch.tensor(expected)), law.logpdf(expected) - math.log(high - low), atol=0.011
    )
    assert levels.table("cpu").log_density(torch.tensor([-LIMIT - 1, LIMIT + 1])).tolist() == [-math.inf, -math.inf]


def test_beta_levels_are_those_of_a_flow_s_time():
    found = Levels("beta", parameters=(2.0, 5.0)).table("cpu").quantile(U).sigmoid()
    np.testing.assert_allclose(found, stats.beta(2, 5).ppf(U), rtol=2e-4)


def test_cosine_levels_are_the_tangent_of_uniform_angles():
    beyond = 2 / np.pi * np.arctan(np.exp(-LIMIT))  # at either end
    angle = np.pi / 2 * (beyond + U.numpy() * (1 - 2 * beyond))
    np.testing.assert_allclose(Levels("sech").table("cpu").quantile(U).exp(), np.tan(angle), rtol=3e-4)


def test_linear_ddpm_levels_are_those_of_its_thousand_steps():
    steps = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    r = np.sqrt((1 - steps) / steps)
    found = Levels("linear-ddpm").table("cpu").quantile(torch.tensor([0.1, 0.3, 0.7, 0.9], dtype=torch.float64)).exp()
    np.testing.assert_allclose(found, r[[100, 300, 700, 900]], rtol=0.04)  # continuous time against a thousand steps
    above = Levels("linear-ddpm").table("cpu").quantile(torch.arange(1, 1000, dtype=torch.float64) / 1000).exp() > 11.9
    assert above.double().mean().item() == pytest.approx(0.30, abs=0.005)


def test_speed_draws_what_its_paper_and_its_code_say():
    u = torch.arange(1, 20_000, dtype=torch.float64) / 20_000
    times = ddpm_time(Levels("speed-code").table("cpu").quantile(u))[0]
    # Of the code, by hand: 300 of 1,000 times at half of one 3,800th, 58 at 7.5 and 42 at 5.5.
    assert (times > 0.7).double().mean().item() == pytest.approx(0.5 * 300 / 3800, abs=1e-3)
    assert (times < 0.1).double().mean().item() == pytest.approx((7.5 * 58 + 5.5 * 42) / 3800, abs=2.5e-3)  # from .001
    ddpm = SOURCES["vectors"]()
    before, after = (
        Noising(Levels("linear-ddpm"), allocation=how).table(ddpm).quantile(u) for how in (None, Allocation("speed"))
    )
    share = (before.exp() > 11.9).double().mean()
    kept = share / (share + 5 * (1 - share))
    assert (after.exp() > 11.9).double().mean().item() == pytest.approx(kept.item(), abs=2e-3)
    # Weights are .6 at the steepest place of 1 - alpha bar, 1 in the last area, .4 where it is flat.
    ln_r = {0.2191: 0.6, 0.69999: None, 0.7001: 1.0, 0.9: 1.0}
    for time, expected in ln_r.items():
        r = torch.tensor(math.expm1(0.1 * time + 19.9 * time**2 / 2) ** 0.5, dtype=torch.float64)
        relative = (WEIGHTS["speed-code"](r) / WEIGHTS["eps"](r)).item()
        assert 0.4 < relative < 0.45 if expected is None else relative == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["eps", "edm", "flow"])
def test_a_weight_turns_the_denoiser_s_error_into_that_of_its_objective(name):
    """By the definitions of noise, v and velocity, on data of standard deviation 1."""
    x0, eps, denoised = torch.randn(3, 64, dtype=torch.float64, generator=generator(1))
    r = torch.logspace(-2, 2, 64, dtype=torch.float64)
    x = x0 + r * eps
    alpha = (1 + r.square()).rsqrt()
    v = {
        "eps": lambda clean: (x - clean) / r,
        "edm": lambda clean: (alpha * (x - clean) / r) - alpha * r * clean,  # alpha eps - sigma x0
        "flow": lambda clean: (x - clean) / r - clean,  # eps - x0
    }[name]
    error = (v(denoised) - v(x0)).square()
    torch.testing.assert_close(error, WEIGHTS[name](r) * (denoised - x0).square())


def test_weights_that_are_known_under_several_names():
    r = torch.logspace(-3, 3, 50)
    snr = r.square().reciprocal()
    torch.testing.assert_close(Weighting("edm")(0.5 * r, 0.5), edm_weight(0.5 * r, 0.5))
    torch.testing.assert_close(Weighting("eps")(0.5 * r, 0.5), score_weight(0.5 * r))
    torch.testing.assert_close(WEIGHTS["min-snr"](r), torch.minimum(snr, torch.tensor(5.0)))
    torch.testing.assert_close(WEIGHTS["min-snr"](r, 1.5), torch.minimum(snr, torch.tensor(1.5)))
    torch.testing.assert_close(WEIGHTS["p2"](r), WEIGHTS["soft-min-snr"](r))
    torch.testing.assert_close(WEIGHTS["p2"](r, 2.0, 0.5), snr / (2 + snr).sqrt())
    torch.testing.assert_close(Weighting("soft-min-snr")(0.5 * r, 0.5), 1 / (0.25 * r.square() + 0.25))
    torch.testing.assert_close(WEIGHTS["soft-min-snr"](r, 4.0), snr * 4 / (snr + 4))


class TwoLevels(torch.nn.Module):
    """One number for all examples, and an uncertainty for each of two noise levels."""

    def __init__(self, u):
        super().__init__()
        self.answer, self.u = torch.nn.Parameter(torch.tensor(0.3)), u

    def uncertainty(self, sigma):
        return torch.where(sigma < 1, self.u[0], self.u[1])


def test_an_uncertainty_head_at_its_optimum_cancels_every_static_weight():
    target = torch.randn(64, 1, generator=generator(2))
    sigma = torch.tensor([0.2, 5.0]).repeat(32)
    gradients = {}
    for name in ("x0", "edm", "min-snr", "p2"):
        batch = Batch(target, sigma, Weighting(name)(sigma, 0.5), torch.arange(64), target)
        network = TwoLevels(None)
        losses = per_example_loss(network.answer.expand(64, 1), batch)
        network.u = [losses[sigma < 1].mean().log().detach(), losses[sigma > 1].mean().log().detach()]
        objective(losses, batch, network).mean().backward()
        plain = torch.autograd.grad(per_example_loss(network.answer.expand(64, 1), batch).mean(), network.answer)
        gradients[name] = (network.answer.grad.item(), plain[0].item())
    with_head, without = zip(*gradients.values(), strict=True)
    assert with_head == pytest.approx([with_head[0]] * 4, rel=1e-5)
    assert len({round(g, 3) for g in without}) == 4


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("again", [False, True])
def test_other_weights_leave_examples_and_noise_as_they_are(source, again):
    own = SOURCES[source]()
    other = noised(own, Noising(weight=Weighting("x0")), 48)
    eps = generator(7) if again else None
    a, b = own.draw(40, generator(3), eps), other.draw(40, generator(3), generator(7) if again else None)
    for name in ("sigma", "id", "label", "target"):
        one, two = getattr(a, name), getattr(b, name)
        assert one is None if two is None else torch.equal(one, two), name
    torch.testing.assert_close(a.x, b.x)
    assert b.weight.tolist() == pytest.approx([own.sigma_data**-2] * 40)


def test_nothing_changed_is_the_very_source(tree):
    assert noised(tree, Noising(), 64) is tree
    assert ARMS["baseline"].kinds() == Arm("mine", "uniform").kinds()


def test_the_exact_target_is_today_s_bit_for_bit(tree):
    here = noised(tree, Noising(target="exact"), 64)
    a, b = tree.draw(50, generator(4)), here.draw(50, generator(4))
    assert b.target is None
    a, b = tree.complete(a), here.complete(b)
    for name in ("x", "sigma", "weight", "id", "target"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def strata_of(batch, own, n):
    return ((batch.sigma.log() - own.noise.mean) / own.noise.std).double().mul(2**-0.5).erf().add(1).mul(n / 2).floor()


def draws_of(source, n, drawing):
    streams = Streams(3, drawing=drawing)
    if drawing == "host":
        return [source.draw(n, streams.generator("draw", step)) for step in range(40)]
    noise = streams.counter("noise")
    return [source.draw_rows(range(n), streams.counter("draw", step), noise) for step in range(40)]


@pytest.mark.parametrize("drawing", ["host", "device"])
@pytest.mark.parametrize("name", ["tree", "vectors"])
def test_strata_are_covered_exactly_in_random_order(name, drawing):
    own, n = SOURCES[name](), 60
    batches = draws_of(noised(own, Noising(stratified=True), n), n, drawing)
    strata = torch.stack([strata_of(batch, own, n) for batch in batches])
    # A level at the very edge of a range may be rounded into the next one.
    assert (strata.sort(1).values != torch.arange(n)).double().mean() < 0.002
    # Neither the place in the batch nor the example says anything of the level: means within 4.5 standard errors.
    level, place = strata / n - 0.5, torch.arange(n) / n - 0.5
    error = 4.5 / 12 / (40 * n) ** 0.5
    assert abs((level * place).mean()) < error
    number = torch.stack([batch.id for batch in batches]).double()
    assert abs((level * (number - number.mean()) / number.std() * 12**-0.5).mean()) < error
    assert len({tuple(row.tolist()) for row in strata}) == 40
    # Each example alone has the task's own density.
    assert stats.kstest(((strata + 0.5) / n)[:, ::7].flatten(), "uniform").pvalue > 1e-3


def test_a_part_of_a_stratified_batch_is_a_part_of_the_whole(tree):
    source = noised(tree, Noising(stratified=True), 60)
    whole, part = source.draw(60, generator(5)), source.draw(13, generator(5))
    assert torch.equal(whole.sigma[:13], part.sigma)
    other = source.draw(60, generator(5), generator(6))
    assert torch.equal(whole.sigma, other.sigma)
    assert not torch.isclose(whole.x, other.x).any()


SMOOTH = (lambda x: torch.ones_like(x), lambda x: x.tanh(), lambda x: 1 / (1 + x.square()))


@pytest.mark.parametrize("levels", [Levels("sech"), Levels("cauchy", scale=0.5), Levels("normal", -1.2, 1.6)], ids=str)
@pytest.mark.parametrize("function", SMOOTH)
def test_importance_weights_give_the_task_s_own_expectation(tree, levels, function):
    """Of functions of the level, by 200,000 levels in the middles of equally likely ranges."""
    noising = Noising(levels, same_objective=True, weight=Weighting("soft-min-snr"))
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    table = noising.table(tree)
    x = table.quantile(u)
    found = (noising.weights(x, tree.sigma_data * x.exp(), tree, table) * function(x)).mean()
    own = torch.special.ndtri(u) * tree.noise.std + tree.noise.mean - math.log(tree.sigma_data)
    expected = (noising.weight(tree.sigma_data * own.exp(), tree.sigma_data) * function(own)).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_objective_is_said_to_be_the_same_or_not(tree):
    own = Levels("normal", tree.noise.mean - math.log(tree.sigma_data), tree.noise.std)
    same = (
        Noising(own),
        Noising(own, same_objective=True),
        Noising(Levels("sech"), same_objective=True),
        Noising(weight=Weighting("eps")),
        Noising(stratified=True),
        Noising(target="x0", references=16),
    )
    assert [noising.moved(tree) < 1e-9 for noising in same] == [True] * len(same)
    assert Noising(own, same_objective=True).effective_share(tree) == pytest.approx(1)
    assert Noising(weight=Weighting("min-snr")).moved(tree) > 0.5
    images = SOURCES["images"]()
    assert Noising(weight=Weighting("edm")).moved(images) < 1e-9
    assert Noising(weight=Weighting("eps")).moved(images) > 0.01
    # Two normal densities of one standard deviation, d apart: their total variation is 2 Phi(d / 2) - 1.
    flat = replace_weight(tree)
    shifted = Noising(Levels("normal", own.location + 0.6, own.scale))
    assert shifted.moved(flat) == pytest.approx(2 * stats.norm.cdf(0.3 / own.scale) - 1, abs=1e-4)


def replace_weight(source):
    """The source with a weight of 1 everywhere."""
    source.weight = torch.ones_like
    return source


def test_own_density_is_normalised(tree):
    x = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    assert torch.trapezoid(own_log_density(x, tree).exp(), x).item() == pytest.approx(1)


@pytest.mark.parametrize(("sigma", "left"), [(0.05, 0.61), (0.2, 0.22), (0.8, 0.08)])
def test_a_stable_target_is_unbiased_and_less_noisy(tree, sigma, left):
    """Against the exact posterior mean; what is left of the variance is that of an independent computation."""
    tree.noise = LogNormal(math.log(sigma), 1e-9)
    one, many = (
        tree_target.draw(64_000, generator(8))
        for tree_target in (noised(tree, Noising(target="x0", references=n), 64_000) for n in (1, 16))
    )
    assert torch.equal(one.x, many.x)
    exact = tree.complete(replace(one, target=None)).target
    first, error = one.target - exact, many.target - exact
    assert (error.square().sum() / first.square().sum()).item() == pytest.approx(left, rel=0.06)
    for function in (torch.ones_like, torch.sin, lambda x: (3 * x).cos(), lambda x: x.flip(1).tanh()):
        products = error * function(one.x)
        spread = products.reshape(-1, 16, 2).mean(1).std(0) / (len(products) / 16) ** 0.5  # groups are independent
        assert (products.mean(0).abs() < 4.5 * spread).all()


def test_references_are_of_the_example_s_own_class():
    x0 = torch.arange(8.0)[:, None]
    x, sigma = x0.clone(), torch.full((8,), 1e3)  # all are alike from so far
    label = torch.tensor([0, 0, 1, -1, 1, 1, 1, 1])
    target = stable_target(x, sigma, x0, label, 4).flatten()
    torch.testing.assert_close(target, torch.tensor([0.5, 0.5, 2.0, 1.5, 5.5, 5.5, 5.5, 5.5]), rtol=1e-3, atol=1e-3)
    condition = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 2.0], [1.0, 1.0]]).repeat(2, 1)
    target = stable_target(x, sigma, x0, condition, 4).flatten()
    torch.testing.assert_close(target[:4], torch.tensor([0.5, 0.5, 2.0, 3.0]), rtol=1e-3, atol=1e-3)
    assert stable_target(x, sigma, x0, label, 1) is x0


REFUSED = {
    "chooses by noise level": lambda: Arm("a", "hard", keep=0.2, noising=Noising(stratified=True)),
    "undoes the strata": lambda: Arm(
        "a", "proportional", keep=0.2, memory=LossMemory("sigma"), noising=Noising(stratified=True)
    ),
    "leave out the weight or the half": lambda: Arm(
        "a", "hard", keep=0.2, scoring=Scoring(half=True), noising=Noising(weight=Weighting("x0"))
    ),
    "leave out same_objective": lambda: Noising(same_objective=True),
    "at least 1 reference": lambda: Noising(target="x0", references=0),
    'set target to "x0"': lambda: Noising(references=16),
    "unknown density 'lapalce'.*laplace": lambda: Levels("lapalce"),
    "unknown weight 'minsnr'.*min-snr": lambda: Weighting("minsnr"),
    r"takes at most 1 finite numbers \(gamma\)": lambda: Weighting("min-snr", (5.0, 2.0)),
    "scale of ln r must be at least": lambda: Levels("normal", 0, 0),
    "location of ln r must lie within": lambda: Levels("normal", 12),
    "no finite values": lambda: Levels("linear-ddpm", parameters=(2.0,)).table("cpu").quantile(U),
    "importance weights would leave": lambda: noised(
        SOURCES["tree"](), Noising(Levels("laplace", scale=0.25), same_objective=True), 64
    ),
    "exact target of these data is not known": lambda: noised(SOURCES["images"](), Noising(target="exact"), 64),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_contradicts_itself_is_refused(why):
    with pytest.raises(UserError, match=why):
        REFUSED[why]()


def test_a_source_without_ingredients_is_refused():
    @dataclass
    class Closed:
        noise: LogNormal

        def draw(self, count, generator, eps=None):
            raise AssertionError

        def complete(self, batch):
            return batch

    with pytest.raises(UserError, match="Closed, noises its examples itself, so an arm cannot"):
        noised(Closed(LogNormal(0, 1)), Noising(stratified=True), 64)


def test_arms_that_noise_otherwise_train_and_are_priced_apart():
    arms = [arm for arm in ARMS.values() if arm.noising.axes]
    labels = [kind.label for arm in arms for kind in arm.kinds() if arm.pushed is None]  # that one trains as another
    assert len({*labels, "uniform"}) == len(labels) + 1
    assert ARMS["stable-target-16"].axis == "target"
    mine = replace(ARMS["ajest"], noising=Noising(Levels("sech"), weight=Weighting("x0")))
    assert mine.axis == "selection, noise levels, weight"
    assert mine.kinds()[0] != ARMS["ajest"].kinds()[0]
    task = small_task()
    weights = {}
    for arm in (ARMS["baseline"], *arms):
        trainer = Trainer(task.source("cpu"), Networks(task.network("learner", 0)), small_recipe(), arm, Streams(0))
        for _ in range(2):
            assert math.isfinite(trainer.step().loss)
        weights[arm.name] = torch.cat([p.flatten() for p in trainer.network.parameters()])
    base = weights.pop("baseline")
    same = {name for name, value in weights.items() if torch.equal(value, base)}
    # What the tree does by itself, and what waits for losses.
    waiting = {name for name in weights if ARMS[name].noising.learns} - {"infonoise"}
    assert same == {"exact-target", "eps-weight"} | waiting


def test_noising_goes_through_json():
    arm = replace(
        ARMS["ajest"], noising=Noising(Levels("beta", 0.1, 1.0, (2.0, 3.0)), True, True, Weighting("p2", (1.0, 0.5)))
    )
    assert from_json(Arm, json.loads(json.dumps(to_json(arm))), "x") == arm
    old = to_json(ARMS["baseline"])
    del old["noising"], old["paper"]  # as folders of before have it
    assert from_json(Arm, old, "x") == ARMS["baseline"]


@pytest.fixture
def rules(tmp_path):
    """A file with a density, a weight and an arm of each; forgotten afterwards."""
    before = [dict(known) for known in (DENSITIES, WEIGHTS, ARMS)]
    path = tmp_path / "levels.py"
    path.write_text(
        """
from ajest.diffusion.noising import Levels, Noising, Weighting
from ajest.selection import Arm, register_arm, register_density, register_weight

register_density("student", lambda z, nu=3.0: -(nu + 1) / 2 * (z.square() / nu).log1p())
register_weight("sigmoid", lambda r, bias=1.0: (bias - 2 * r.log()).sigmoid())
register_arm(Arm("student", "uniform", noising=Noising(Levels("student", -1.0, 1.0))))
register_arm(Arm("sigmoid", "uniform", noising=Noising(weight=Weighting("sigmoid", (2.0,)))))
"""
    )
    yield path
    for known, old in zip((DENSITIES, WEIGHTS, ARMS), before, strict=True):
        known.clear()
        known.update(old)


def test_densities_and_weights_of_the_user_s_own(rules, tree):
    found = load_rules(rules)
    assert ARMS["student"].rules == ARMS["sigmoid"].rules == found
    assert ARMS["laplace"].rules is None
    # A worker has the arm's JSON alone, and reads the file before it looks a name up.
    code = (
        "import json, sys; from ajest.selection import Arm; from ajest.storage.config import from_json; "
        "print(from_json(Arm, json.loads(sys.argv[1]), 'x').noising)"
    )
    asked = [sys.executable, "-c", code, json.dumps(to_json(ARMS["student"]))]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "levels student -1 1\n"
    law = stats.t(3, -1)
    low, high = law.cdf(-LIMIT), law.cdf(LIMIT)
    expected = law.ppf(low + U.numpy() * (high - low))
    np.testing.assert_allclose(Levels("student", -1.0, 1.0).table("cpu").quantile(U), expected, atol=2e-4, rtol=1e-4)
    batch = noised(tree, ARMS["sigmoid"].noising, 64).draw(32, generator(1))
    torch.testing.assert_close(batch.weight, (2 - 2 * (batch.sigma / 0.5).log()).sigmoid() / 0.25)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ('register_density("normal", lambda z: -z)', "there is another density 'normal'"),
        ('register_density("d", lambda z: z.sum())', "must give as many floating-point numbers"),
        ('register_density("d", lambda z: z / 0)', "must be finite or minus infinity"),
        ('register_weight("edm", lambda r: r)', "there is another weight 'edm'"),
        ('register_weight("w", lambda r: -r)', "must be finite and at least 0"),
        ('register_weight("w", lambda r, s: r)', "TypeError"),
    ],
)
def test_functions_of_the_level_that_are_none_are_refused(rules, code, why):
    rules.write_text("from ajest.selection import register_density, register_weight\n" + code)
    with pytest.raises(UserError, match=why):
        load_rules(rules)


def test_arms_are_listed_by_what_they_change(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = command("arms").out.splitlines()
    first = [line.split("  ")[0].strip() for line in lines]
    order = [
        first.index(name) for name in ("baseline", "selection", "ajest", "noise levels", "laplace", "weight", "min-snr")
    ]
    assert order == sorted(order)
    row = {name: line.split() for name, line in zip(first, lines, strict=True)}
    assert row["ajest"][1:7] == ["20%", "guide", "8", "+", "5", "g"]
    assert row["proxy"][3:6] == ["3", "+", "8"]
    assert row["cosine-levels"][4] == "77%"
    assert row["cosine-levels-same"][4] == row["stratified"][4] == "same"
