"""Labels and embeddings through sources, selection, training and guidance; what stands where there is none."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from ajest.bench.read.findings import findings
from ajest.bench.read.folder import read
from ajest.bench.report.markdown import as_markdown
from ajest.bench.run.bench import run_bench
from ajest.diffusion import Guide, LearnedNull, LogNormal, as_denoiser, autoguide, guided
from ajest.diffusion.conditions import drop, is_none, without
from ajest.diffusion.guidance import relabelled
from ajest.diffusion.noising import Noising, noised
from ajest.diffusion.noising.targets import stable_target
from ajest.diffusion.objectives import RectifiedFlow
from ajest.errors import UserError
from ajest.runtime.seeding import Streams, generator
from ajest.selection import ARMS
from ajest.selection.catalogue import arms_named
from ajest.selection.flow import Networks
from ajest.storage.config_file import write_config
from ajest.tasks import Guided, Metric, Task, TensorSource
from ajest.tasks.vectors.setup import vectors_task
from ajest.training.networks import Guidance, check_classifier_free, load_guide
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from ajest.training.trainer import Trainer
from conftest import Here, small_bench, small_recipe

DOUBLE = torch.float64
MEANS = torch.tensor([[-1.0, 0.5], [2.0, 0.0]], dtype=DOUBLE)
SHARES = torch.tensor([0.3, 0.7], dtype=DOUBLE)


def log_density(x, sigma, label):
    """ln p(x; sigma) of two Gaussians of unit covariance, or of those of the labels, -1 and None for both."""
    spread = 1 + sigma.square()
    each = -(x[:, None] - MEANS).square().sum(2) / (2 * spread[:, None]) - spread.log()[:, None]
    both = (each + SHARES.log()).logsumexp(1)
    if label is None:
        return both
    return torch.where(label < 0, both, each.gather(1, label.clamp(min=0)[:, None])[:, 0])


def tilted(terms):
    """The denoiser x + sigma^2 d/dx of a sum of weights times log densities."""

    def denoise(x, sigma, label=None):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            total = sum(w * log(x, sigma, label) for w, log in terms)
            (score,) = torch.autograd.grad(total.sum(), x)
        return x.detach() + sigma.square()[:, None] * score

    return denoise


def blurred(x, sigma, label):
    """A worse model of the same: its noise is larger than it is."""
    return log_density(x, 1.5 * sigma + 0.3, label)


def states(n=60):
    label = torch.arange(n) % 3 - 1
    return 3 * torch.randn(n, 2, dtype=DOUBLE, generator=generator(0)), torch.logspace(-2, 1, n, dtype=DOUBLE), label


def test_both_guidances_at_once_follow_the_tilted_density_of_an_exact_mixture():
    """The guided score is that of p(x|y)^(1 + a + c) / (q(x|y)^a p(x)^c), a and c the weights less 1."""
    x, sigma, label = states()
    main, weak = tilted([(1.0, log_density)]), tilted([(1.0, blurred)])
    plain = lambda x, sigma, label: log_density(x, sigma, None)  # noqa: E731
    wanted = tilted([(1 + 0.8 + 1.5, log_density), (-0.8, blurred), (-1.5, plain)])
    model = Guided(main, weak, 1.8, cfg=2.5)
    torch.testing.assert_close(model.denoiser(x, sigma, label), wanted(x, sigma, label))
    alone = Guided(main, cfg=2.5).denoiser
    torch.testing.assert_close(alone(x, sigma, label), tilted([(2.5, log_density), (-1.5, plain)])(x, sigma, label))
    assert torch.equal(alone(x, sigma, label), autoguide(main, relabelled(main, None), 2.5)(x, sigma, label))
    nothing = label == -1  # what has no label is not moved by its loss
    torch.testing.assert_close(alone(x, sigma, label)[nothing], main(x, sigma, label)[nothing])
    assert not model.unguided
    assert not Guided(main, cfg=2.0).unguided
    assert Guided(main).denoiser is main


def test_with_one_guide_it_is_autoguidance_bit_for_bit_and_intervals_hold_for_each():
    x, sigma, label = states()
    main, weak, free = tilted([(1.0, log_density)]), tilted([(1.0, blurred)]), tilted([(0.4, blurred)])
    for interval in (None, (0.1, 2.0)):
        one = Guided(main, weak, 1.8, interval).denoiser(x, sigma, label)
        assert torch.equal(one, autoguide(main, weak, 1.8, interval)(x, sigma, label))
        assert torch.equal(guided(main, [Guide(weak, 1.8, interval), Guide(free, 1.0)])(x, sigma, label), one)
    two = guided(main, [Guide(weak, 1.8, (0.1, 2.0)), Guide(free, 0.5, (1.0, 5.0))])(x, sigma, label)
    first, second = (((sigma >= low) & (sigma <= high))[:, None] for low, high in ((0.1, 2.0), (1.0, 5.0)))
    strong = main(x, sigma, label)
    wanted = strong + first * 0.8 * (strong - weak(x, sigma, label)) - second * 0.5 * (strong - free(x, sigma, label))
    torch.testing.assert_close(two, wanted)

    def forbidden(x, sigma, label=None):
        raise AssertionError("a guide was asked outside its interval")

    beyond = guided(main, [Guide(forbidden, 2.0, (50.0, 60.0)), Guide(forbidden, 3.0, (70.0, 80.0))])
    assert torch.equal(beyond(x, sigma, label), strong)


def test_what_stands_where_there_is_no_label():
    dropped = torch.tensor([True, False, True])
    classes, vectors, texts = torch.tensor([4, 0, 2]), torch.randn(3, 5), torch.randn(3, 4, 2)
    assert drop(classes, dropped).tolist() == [-1, 0, -1]
    for label in (classes, vectors, texts):
        lost = drop(label, dropped)
        assert (lost.dtype, lost.shape) == (label.dtype, label.shape)
        assert is_none(lost).tolist() == dropped.tolist()
        assert torch.equal(lost[1], label[1])
    assert without(classes) is None
    assert without(None) is None
    assert torch.equal(without(texts), torch.zeros(3, 4, 2))
    plain = torch.tensor([0.0, 1.0, 2.0])  # a temperature, say, whose 0 is no loss
    assert is_none(plain).tolist() == [False] * 3
    assert without(plain) is None


class Texts(nn.Module):
    """A raw network that asks for embeddings of four tokens."""

    def __init__(self, width=8):
        super().__init__()
        self.first, self.text, self.last = nn.Linear(3, width), nn.Linear(5, width), nn.Linear(width, 2)

    def forward(self, z, t, label):
        return self.last((self.first(torch.cat([z, t[:, None]], 1)) + self.text(label).mean(1)).tanh())


def network(width=8):
    return as_denoiser(LearnedNull(Texts(width), (4, 5)), "flow", RectifiedFlow())


def test_a_learned_null_takes_the_place_of_lost_and_absent_embeddings():
    torch.manual_seed(0)
    net = network()
    with torch.no_grad():
        net.network.null.normal_()
    x, sigma, label = torch.randn(6, 2), torch.rand(6) + 0.1, torch.randn(6, 4, 5)
    lost = torch.arange(6) % 2 == 0
    raw = as_denoiser(net.network.network, "flow", RectifiedFlow())
    null = net.network.null.expand(6, 4, 5)
    wanted = raw(x, sigma, torch.where(lost.view(-1, 1, 1), null, label))
    torch.testing.assert_close(net(x, sigma, drop(label, lost)), wanted)
    torch.testing.assert_close(net(x, sigma), raw(x, sigma, null))
    torch.testing.assert_close(relabelled(net, None)(x, sigma, label), raw(x, sigma, null))
    net(x, sigma, drop(label, lost)).sum().backward()
    assert net.network.null.grad.abs().sum() > 0
    with pytest.raises(UserError, match=r"embeddings have shape \(6, 4\), not \(6, 4, 5\)"):
        net(x, sigma, label[..., 0])


def source(dropout=0.25, n=300):
    x, label = torch.randn(n, 2, generator=generator(0)), torch.randn(n, 4, 5, generator=generator(1))
    return TensorSource(x, LogNormal(-1.2, 1.2), 1.0, label, label_dropout=dropout), label


@pytest.mark.parametrize("rows", [False, True], ids=["host", "device"])
def test_a_source_carries_embeddings_and_drops_them_with_the_example(rows):
    own, label = source()
    if rows:
        stream = Streams(0).counter("draw", 0)
        batch = own.draw_rows(range(200), stream, stream.substream("eps"))
        assert torch.equal(own.outline(range(200), stream).label, batch.label)
        assert torch.equal(
            own.draw_rows(torch.tensor([3, 77]), stream, stream.substream("eps")).label[1], batch.label[77]
        )
    else:
        batch = own.draw(200, generator(3))
        assert torch.equal(own.draw(200, generator(3), generator(9)).label, batch.label)
        other = noised(own, Noising(stratified=True), 200).draw(200, generator(3))
        assert torch.equal(other.label, batch.label)
    lost = is_none(batch.label)
    assert 20 < lost.sum() < 80
    assert torch.equal(batch.label[~lost], label[batch.id][~lost])
    part = next(iter(batch[torch.arange(10, 30)].split(7)))
    assert torch.equal(part.label, batch.label[10:17])
    assert own.held(0) == (300 * 2 + 300 * 20) * 4


def test_a_source_refuses_labels_that_do_not_fit():
    x, noise = torch.randn(10, 2), LogNormal(-1.2, 1.2)
    with pytest.raises(UserError, match="10 examples have 9 labels"):
        TensorSource(x, noise, label=torch.zeros(9, 3))
    with pytest.raises(UserError, match=r"of shape \(10,\) that are no class numbers cannot be dropped"):
        TensorSource(x, noise, label=torch.zeros(10), label_dropout=0.1)
    assert TensorSource(x, noise, label=torch.zeros(10)).draw(4, generator(0)).label.shape == (4,)


def test_stable_targets_average_over_all_where_an_embedding_is_lost():
    x0 = torch.tensor([[0.0], [1.0]])
    label = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    found = stable_target(torch.full((2, 1), 0.5), torch.ones(2), x0, label, 2)
    assert found.flatten().tolist() == [0.0, 0.5]


@pytest.mark.parametrize("arm", ["baseline", "ajest", "hard", "joint-residual", "recall"])
def test_arms_choose_and_train_with_embeddings(arm):
    torch.manual_seed(0)
    own, _ = source()
    trainer = Trainer(own, Networks(network(), network(4)), small_recipe(), replace(ARMS[arm], chunks=4), Streams(0))
    before = trainer.selector.networks.learner.network.null.clone()
    steps = [trainer.step() for _ in range(2)]
    assert all(step.batch.label.shape[1:] == (4, 5) for step in steps)
    assert not torch.equal(trainer.selector.networks.learner.network.null, before)


@dataclass(frozen=True)
class Captioned(Task):
    """Points that lie where their texts say."""

    name: str = "captioned"
    label_dropout: float = 0.2
    metrics = (Metric("far", "distance", "lower", "Mean distance from where the text says.", headline="both"),)

    @property
    def conditional(self):
        return True

    def source(self, device):
        return source(self.label_dropout)[0]

    def network(self, role, seed):
        torch.manual_seed(seed)
        return network(8 if role == "learner" else 4)

    def evaluate(self, model, how):
        raise NotImplementedError


def test_guides_are_asked_with_embeddings_and_without(tmp_path):
    task = Captioned()
    for role, folder in (("learner", "run"), ("guide", "guide")):
        config = RunConfig(task, role, small_recipe(), ARMS["baseline"], 0, 2)
        assert execute(tmp_path / folder, config, Schedule()) == "done"
    x, sigma, label = torch.randn(5, 2), torch.rand(5) + 0.1, torch.randn(5, 4, 5)
    guide, _ = load_guide(Guidance(tmp_path / "guide"), task)
    free, _ = load_guide(Guidance(tmp_path / "guide", unconditional=True), task)
    assert not torch.equal(guide(x, sigma, label), guide(x, sigma))
    assert torch.equal(free(x, sigma, label), guide(x, sigma))
    check_classifier_free(tmp_path / "run", task)
    with pytest.raises(UserError, match="learned with every label, so that it cannot be asked without one"):
        check_classifier_free(tmp_path / "run", replace(task, label_dropout=0.0))


def test_a_bench_guides_both_ways_at_once(tmp_path, command, refused):
    table = "\n".join(["x,label", *(f"{i % 7 + 3 * (i % 2)},{'ab'[i % 2]}" for i in range(400))])
    (tmp_path / "x.csv").write_text(table)
    task = vectors_task((str(tmp_path / "x.csv"),), hidden=8, guide_hidden=4, label_dropout=0.2)
    config = small_bench(
        task=task, arms=arms_named(("baseline", "random")), cfg=2.0, guides=2, n_final=200, n_curve=200
    )
    run_bench(tmp_path / "bench", config, Here(1), "cpu")
    results = read(tmp_path / "bench")
    for metric, weight in results.headlines():
        for arm in results.arms:
            assert len(results.cell(config.final_budget, arm, metric.name, weight).values) == 2
    assert results.cell(config.final_budget, "random", "loss", 1.0) is not None
    lines = [line for run in results.runs.values() for line in run.lines]
    assert {(line["weight"], line.get("settings", {}).get("cfg")) for line in lines} == {(1.0, None), (3.0, 2.0)}
    other = replace(config, cfg=1.0)
    write_config(tmp_path / "bench" / "bench.json", other)
    plain = read(tmp_path / "bench")
    assert all(plain.cell(other.final_budget, "random", m.name, w) is None for m, w in plain.headlines() if w != 1)
    assert "classifier-free guidance weight 2" in as_markdown(findings(results))
    with pytest.raises(UserError, match="--label-dropout"):
        replace(config, task=replace(task, label_dropout=0.0))
    refused("bench", "tree", "--cfg", "2", "--out", "b", says="--cfg asks networks without labels")


def test_commands_guide_both_ways_at_once(command, refused, tmp_path):
    table = "\n".join(["x,label", *(f"{i % 7 + 3 * (i % 2)},{'ab'[i % 2]}" for i in range(400))])
    (tmp_path / "x.csv").write_text(table)
    words = ("train", "vectors", "--data", "x.csv", "--iterations", "2", "--super-batch", "64")
    assert command(*words, "--label-dropout", "0.2", "--out", "r").code == 0
    assert command(*words, "--seed", "1", "--out", "g").code == 0
    found, guide = {}, ("--guide", "g", "--weight", "1.5")
    for name, more in {"plain": (), "cfg": ("--cfg", "2"), "guide": guide, "both": (*guide, "--cfg", "2")}.items():
        done = command("sample", "r", "--n", "16", "--sampler-steps", "3", *more, "--out", "s")
        assert done.code == 0, done.err
        assert ("classifier-free guidance with weight 2" in done.out) == ("--cfg" in more)
        found[name] = (tmp_path / "s" / "samples.csv").read_text()
    assert len(set(found.values())) == 4
    interval = ("--guide", "g", "--interval", "0.1", "2")
    for more in (("--cfg", "2"), ("--cfg", "2"), (*interval, "--weights", "1.5", "--cfg", "2")):
        done = command("evaluate", "r", "--n", "40", "--sampler-steps", "3", *more)
        assert done.code == 0, done.err
        assert "classifier-free guidance" in " ".join(done.out.split())
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["settings"] for line in lines] == [
        {"sampler_steps": 3, "cfg": 2.0},
        {"sampler_steps": 3, "guide": {"interval": [0.1, 2.0]}, "cfg": [2.0, 0.1, 2.0]},
    ]
    assert "loss" not in lines[0]["metrics"]  # of a guided denoiser it would mean nothing
    refused("sample", "g", "--cfg", "2", "--out", "s", says="g learned with every label.* or leave out --cfg")
    refused("sample", "r", "--cfg", "nan", "--out", "s", says="--cfg must be a number")
    refused("sample", "r", "--interval", "1", "2", "--out", "s", says="--interval needs a guide")
