"""Models of diffusers as networks: made on the spot, offline, and compared with what diffusers itself computes."""

import json
import math
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ajest.diffusion.guidance import autoguide
from ajest.diffusion.network import flops_of
from ajest.diffusion.sampling import sample
from ajest.errors import UserError
from ajest.integrations.diffusers import DiffusersNetwork, denoiser_of, export, read_model
from ajest.runtime.seeding import generator
from ajest.storage.config import from_json, to_json
from ajest.tasks import Task
from ajest.training.networks import load_network
from conftest import small_images

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of its schedulers

UNET = {
    "_class_name": "UNet2DModel", "sample_size": 16, "in_channels": 3, "out_channels": 3,
    "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 8,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "num_class_embeds": 11,
}  # fmt: skip
DIT = {
    "_class_name": "DiTTransformer2DModel", "sample_size": 16, "in_channels": 3, "out_channels": 6, "patch_size": 4,
    "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "num_embeds_ada_norm": 10,
    "norm_num_groups": 2,
}  # fmt: skip
SANA = {
    "_class_name": "SanaTransformer2DModel", "sample_size": 16, "in_channels": 3, "out_channels": 3, "patch_size": 2,
    "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8, "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 12,
}  # fmt: skip
DDPM = {"_class_name": "DDPMScheduler", "prediction_type": "epsilon", "clip_sample": False}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
EDM = {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}


def folder(path, model=UNET, scheduler=DDPM, **changes):
    """A folder as from_pretrained reads it, without weights."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(model | changes))
    if scheduler:
        (path / "scheduler_config.json").write_text(json.dumps(scheduler))
    return path


def examples(n=3, channels=3):
    x = torch.randn(n, channels, 16, 16, generator=generator(0, "x"))
    return x, torch.tensor([0.05, 1.0, 20.0])[:n], torch.arange(n)


@pytest.mark.parametrize("scheduler", [DDPM, DDPM | {"prediction_type": "v_prediction"}, FLOW, EDM], ids=str)
@pytest.mark.parametrize("model", [UNET, DIT, SANA], ids=lambda m: m["_class_name"])
def test_models_of_every_class_are_networks(model, scheduler, tmp_path):
    settings = read_model(folder(tmp_path, model, scheduler))
    network = settings.denoiser(16, 10, generator=generator(0, "w"))
    again, other = (settings.denoiser(16, 10, generator=generator(seed, "w")) for seed in (0, 1))
    x, sigma, label = examples()
    for net in (network, again, other):
        net.eval()
    found = network(x, sigma, label)
    assert found.shape == x.shape
    assert torch.equal(found, again(x, sigma, label))
    assert not torch.equal(found, other(x, sigma, label))
    assert not torch.equal(found, network(x, sigma, torch.tensor([-1, -1, -1])))
    assert torch.equal(network(x, sigma, None), network(x, sigma, torch.tensor([-1, -1, -1])))
    network.train()(x, sigma, label).square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    batch = small_images().source("cpu").draw(2, generator(0, "d"))
    assert flops_of(network, lambda: batch) > 1e4


def test_making_a_model_leaves_torchs_own_generator_alone(tmp_path):
    settings, before = read_model(folder(tmp_path)), torch.get_rng_state()
    settings.denoiser(16, 10, generator=generator(0, "w"))
    assert torch.equal(torch.get_rng_state(), before)


def test_in_training_a_model_drops_no_label_by_itself(tmp_path):
    network = read_model(folder(tmp_path, DIT)).denoiser(16, 10, generator=generator(0, "w")).train()
    x, sigma, label = (part.repeat(40, *[1] * (part.ndim - 1)) for part in examples())
    with torch.no_grad():
        assert torch.equal(network(x, sigma, label), network(x, sigma, label))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_model_that_knows_the_answer_denoises_exactly(kind):
    """F made of x0 and eps by the definitions of diffusers' own scheduler."""
    scheduler = diffusers.DDPMScheduler(prediction_type=kind)
    network = denoiser_of(diffusers.UNet2DModel.from_config(UNET | {"num_class_embeds": None}), scheduler)
    x0, eps = torch.randn(2, 2, 3, 16, 16, generator=generator(0, "x")).unbind(0)
    time = torch.tensor([20, 700])
    kept = scheduler.alphas_cumprod[time]
    sigma = ((1 - kept) / kept).sqrt()
    noised = scheduler.add_noise(x0, eps, time)
    target = {"epsilon": eps, "sample": x0, "v_prediction": scheduler.get_velocity(x0, eps, time)}[kind]

    class Knows(torch.nn.Module):
        def forward(self, seen, timestep, return_dict):
            torch.testing.assert_close(seen, noised, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(timestep, time.float(), atol=1e-2, rtol=0)
            return (target,)

    network.network.model = Knows()
    torch.testing.assert_close(network(x0 + sigma.view(2, 1, 1, 1) * eps, sigma), x0, atol=2e-3, rtol=1e-4)


def test_a_flow_that_knows_the_answer_denoises_exactly():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    network = denoiser_of(diffusers.UNet2DModel.from_config(UNET | {"num_class_embeds": None}), scheduler)
    x0, eps = torch.randn(2, 2, 3, 16, 16, generator=generator(0, "x")).unbind(0)
    time = scheduler.timesteps[[100, 900]]
    noised = scheduler.scale_noise(x0, time, eps)
    share = (time / 1000).view(2, 1, 1, 1)

    class Knows(torch.nn.Module):
        def forward(self, seen, timestep, return_dict):
            torch.testing.assert_close(seen, noised)
            torch.testing.assert_close(timestep, time)
            return (eps - x0,)

    network.network.model = Knows()
    sigma = (time / 1000) / (1 - time / 1000)
    torch.testing.assert_close(network(noised / (1 - share), sigma), x0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_heuns_method_is_that_of_diffusers(kind, tmp_path):
    """Our sampler through our adapter, and theirs from the folder that `export` writes: the same images."""
    settings = read_model(folder(tmp_path / "in", scheduler=DDPM | {"prediction_type": kind}, num_class_embeds=None))
    network = settings.denoiser(16, 0, generator=generator(0, "w")).eval()
    export(network, tmp_path / "out")
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    heun = diffusers.HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
    heun.set_timesteps(6)
    sigmas = [*heun.sigmas[[0, *range(1, 11, 2)]].tolist(), 0.0]
    start = sigmas[0] * torch.randn(2, 3, 16, 16, generator=generator(0, "x"))
    x = start
    with torch.no_grad():
        for time in heun.timesteps:
            x = heun.step(pipeline.unet(heun.scale_model_input(x, time), time).sample, time, x).prev_sample
    torch.testing.assert_close(sample(network, start, sigmas), x, atol=2e-3, rtol=2e-3)


def test_an_edm_model_is_scaled_as_its_scheduler_does_it():
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.5)
    network = denoiser_of(diffusers.UNet2DModel.from_config(UNET | {"num_class_embeds": None}), scheduler).eval()
    x, sigma, _ = examples(1)
    with torch.no_grad():
        answer = network.raw(scheduler.precondition_inputs(x, sigma), sigma.log() / 4).sample
        torch.testing.assert_close(network(x, sigma), scheduler.precondition_outputs(x, answer, sigma))


def test_a_config_identifies_its_task(tmp_path):
    one, same, other = (
        read_model(folder(tmp_path / name, layers_per_block=n)) for name, n in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == same != other
    task = small_images(learner=one)
    assert from_json(Task, json.loads(json.dumps(to_json(task))), "here") == task
    changed = replace(task, learner=other)
    assert changed != task
    with pytest.raises(UserError, match="changed by hand"):
        replace(one, config=other.config)


def test_a_pipelines_folder_and_what_is_said_in_place_of_a_scheduler(tmp_path):
    folder(tmp_path / "p" / "transformer", DIT, None)
    folder(tmp_path / "p" / "scheduler", scheduler=FLOW)
    (tmp_path / "p" / "scheduler" / "config.json").unlink()
    flow = read_model(tmp_path / "p")
    assert (flow.name, flow.sigma_max) == ("DiTTransformer2DModel", math.inf)
    assert read_model(tmp_path / "p", "epsilon").sigma_max == pytest.approx(157, rel=0.01)
    assert read_model(folder(tmp_path / "u", scheduler=None) / "config.json", "flow").sigma_max == math.inf


@pytest.mark.parametrize(
    ("model", "scheduler", "says"),
    [
        (UNET, None, "nothing says what the model of .* predicts: put the scheduler's"),
        (UNET | {"_class_name": "UNet2DModle"}, DDPM, "unknown class of diffusers .*did you mean 'UNet2DModel'"),
        (UNET | {"_class_name": "DDPMPipeline"}, DDPM, "DDPMPipeline is no ModelMixin"),
        ({k: v for k, v in UNET.items() if k != "_class_name"}, DDPM, "names no class"),
        (UNET, {"_class_name": "ScoreSdeVeScheduler"}, "not known how they denoise"),
        (UNET, DDPM | {"prediction_type": "noise"}, "unknown prediction_type 'noise'"),
        ({"_class_name": "AutoencoderKL"}, DDPM, "AutoencoderKL is asked with"),
        ({"_class_name": "SD3Transformer2DModel"}, FLOW, "ajest can give an image, a timestep"),
    ],
)
def test_configs_that_cannot_be_read_are_refused_in_one_line(model, scheduler, says, tmp_path):
    with pytest.raises(UserError, match=says) as caught:
        read_model(folder(tmp_path, model, scheduler))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"in_channels": 1, "out_channels": 1}, "1 channels in and 1 out, and the data have 3"),
        ({"sample_size": 32}, "for images of 32 x 32, not 16 x 16: .* or name --resolution 32"),
        ({"num_class_embeds": 4}, "knows 4 classes, and the data have 10: set num_class_embeds .* to 11"),
        ({"norm_num_groups": 5}, "UNet2DModel cannot be made of this config: ValueError: "),
    ],
)
def test_models_that_do_not_fit_the_data_are_refused(changes, says, tmp_path):
    with pytest.raises(UserError, match=says):
        small_images(learner=read_model(folder(tmp_path, **changes))).network("learner", 0)


def test_labels_that_a_model_has_no_class_for(tmp_path):
    exact = read_model(folder(tmp_path, num_class_embeds=10))
    x, sigma, label = examples()
    network = exact.denoiser(16, 10, generator=generator(0, "w"))
    assert network(x, sigma, label).shape == x.shape
    with pytest.raises(UserError, match="cannot answer without a label"):
        network(x, sigma)
    with pytest.raises(UserError, match="none for no label: set num_class_embeds in its config to 11"):
        small_images(learner=exact, label_dropout=0.1)
    assert small_images(learner=exact).learner == exact


def test_a_schedule_that_ends_below_the_samplers_start_is_refused(tmp_path):
    latent = DDPM | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    short = read_model(folder(tmp_path, scheduler=latent))
    with pytest.raises(UserError, match=r"knows noise levels up to 14\.61, .* name --sigma-max 14\.6"):
        small_images(learner=short)
    assert small_images(learner=short, sigma_max=14.6).learner == short


def test_a_model_without_classes_learns_all_images(tmp_path):
    plain, said = read_model(folder(tmp_path, num_class_embeds=None)), []
    task = small_images.__wrapped__(learner=plain, warn=said.append)
    assert (task.classes, task.size) == ((), 256)
    assert any("takes no classes: the images of all 10 are learned without labels" in line for line in said)
    with pytest.raises(UserError, match="takes no classes: leave out --classes"):
        small_images(learner=plain, classes=2)


@pytest.fixture
def trained(command, tmp_path):
    """A run of a few steps by the command line."""
    words = ("--data", "shapes:256", "--resolution", "16", "--classes", "all", "--iterations", "2", "--out", "run")
    network = f"diffusers:{folder(tmp_path / 'unet')}"
    done = command("train", "images", "--network", network, "--precision", "float32", *words)
    assert done.code == 0, done.err
    return tmp_path / "run"


def test_what_a_run_exports_draws_the_runs_images(trained, command, refused, tmp_path):
    done = command("export", trained, "--to", "diffusers", tmp_path / "hub")
    assert done.code == 0, done.err
    unet = diffusers.UNet2DModel.from_pretrained(tmp_path / "hub" / "unet", local_files_only=True)
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "hub" / "scheduler", local_files_only=True)
    theirs, (ours, _) = denoiser_of(unet, scheduler, 10), load_network(trained)
    assert isinstance(ours, DiffusersNetwork)
    assert not list((tmp_path / "hub").rglob("*.bin"))
    start, label = 80 * torch.randn(3, 3, 16, 16, generator=generator(0, "x")), torch.tensor([0, 4, -1])
    sigmas = [80.0, 5.0, 0.5, 0.0]
    assert torch.equal(sample(theirs.eval(), start, sigmas, label), sample(ours, start, sigmas, label))
    refused("export", trained, tmp_path / "hub", "--to", "diffusers", says="holds something already")


def test_a_model_that_is_asked_is_not_changed_and_is_told_what_it_asks_for():
    scheduler = diffusers.DDPMScheduler()
    dit = diffusers.DiTTransformer2DModel(
        num_attention_heads=1, attention_head_dim=8, in_channels=3, num_layers=1, sample_size=8, patch_size=4,
        num_embeds_ada_norm=10, norm_num_groups=1,
    )  # fmt: skip
    before = [m.dropout_prob for m in dit.modules() if type(m).__name__ == "LabelEmbedding"]
    denoiser_of(dit, scheduler, 10)
    assert before == [0.1]
    assert [m.dropout_prob for m in dit.modules() if type(m).__name__ == "LabelEmbedding"] == before
    with pytest.raises(UserError, match="asked with one of 11 labels: say classes=, how many of them are real"):
        denoiser_of(diffusers.UNet2DModel.from_config(UNET | {"num_class_embeds": 11}), scheduler)
    told = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(4,), norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=6,
        attention_head_dim=2,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"asked with tokens: say embedding=\(how many, 6\), or classes="):
        denoiser_of(told, scheduler)
    with pytest.raises(UserError, match="takes tokens of 6 numbers"):
        denoiser_of(told, scheduler, embedding=(7, 5))
    network = denoiser_of(told, scheduler, embedding=(7, 6)).eval()
    x, tokens = (torch.randn(shape, generator=generator(0, "x")) for shape in ((2, 3, 8, 8), (2, 7, 6)))
    answers = [network(x, torch.ones(2), text) for text in (tokens, -tokens)]
    assert answers[0].shape == x.shape
    assert not torch.allclose(*answers)


def test_only_models_of_diffusers_are_exported(command, refused):
    words = ("--data", "shapes:512", "--resolution", "16", "--iterations", "1", "--network", "nano")
    assert command("train", "images", *words, "--out", "own").code == 0
    refused("export", "own", "there", "--to", "diffusers", says="trained EDM2Denoiser, which is no class of diffusers")


def test_the_command_line_names_both_networks(command, refused, monkeypatch, tmp_path):
    configs = []
    monkeypatch.setattr("ajest.bench.run.bench.run_bench", lambda root, config, *_: configs.append(config))
    monkeypatch.setattr("ajest.bench.report.page.write_report", lambda root: None)
    monkeypatch.setattr("ajest.cli.bench._print_verdict", lambda findings: None)
    learner, guide = folder(tmp_path / "a"), folder(tmp_path / "b", scheduler=None, block_out_channels=[4, 8])
    words = ("bench", "images", "--data", "shapes:256", "--resolution", "16", "--classes", "all", "--network")
    asked = (f"diffusers:{learner}", "--guide-network", f"diffusers:{guide}", "--prediction", "v_prediction")
    done = command(*words, *asked)
    assert done.code == 0, done.err
    (config,) = configs
    assert config.task.learner == read_model(learner, "v_prediction") != read_model(learner)
    assert config.task.guide == read_model(guide, "v_prediction")
    assert config.recipe.learning_rate.peak == config.guide_recipe.learning_rate.peak == 2e-4
    refused(*words, "xxs", "--prediction", "sample", says="--prediction is for models of diffusers")
    refused(*words, f"diffusers:{tmp_path / 'none'}", says="there is no file or folder")
    refused(*words, "xxxs", says="unknown network 'xxxs'")


def test_a_second_model_guides_in_diffusers_own_loop(tmp_path):
    from ajest.integrations.diffusers.guider import GuideNetworkGuidance

    plain = UNET | {"num_class_embeds": None}
    models = []
    for seed, config in enumerate((plain, plain | {"block_out_channels": [4, 8]})):
        torch.manual_seed(seed)
        models.append(diffusers.UNet2DModel.from_config(config).eval())
    main, guide = models
    scheduler = diffusers.DDPMScheduler()
    both = autoguide(denoiser_of(main, scheduler), denoiser_of(guide, scheduler), 2.5)
    kept = scheduler.alphas_cumprod[500]
    sigma = ((1 - kept) / kept).sqrt()
    x = torch.randn(2, 3, 16, 16, generator=generator(0, "x"))
    guider = GuideNetworkGuidance(guide, 2.5, stop=0.5)
    found = {}
    for step in (0, 1):
        guider.set_state(step, 2, torch.tensor(500))
        inputs = guider.prepare_inputs({"sample": (x, x)})
        for batch in inputs:
            guider.prepare_models(main)
            with torch.no_grad():
                batch.noise_pred = main(batch.sample, torch.tensor(500.0)).sample
            guider.cleanup_models(main)
        found[step] = guider(inputs)[0]
    with torch.no_grad():
        alone = main(x, torch.tensor(500.0)).sample
        torch.testing.assert_close(found[1], alone)  # guidance has stopped
        assert not torch.allclose(found[0], alone)
        eps = found[0]
        noised = x / kept.sqrt()
        torch.testing.assert_close(noised - sigma * eps, both(noised, sigma.expand(2)), atol=1e-3, rtol=1e-3)
    assert torch.equal(main(x, torch.tensor(500.0)).sample, alone)


def test_the_example_trains_exports_and_guides(command, capsys, monkeypatch, tmp_path):
    """In this process, with the commands that it runs: six would import diffusers."""

    def run(words, check):
        assert (words[:3], check) == ([sys.executable, "-m", "ajest"], True)
        done = command(*words[3:])
        assert done.code == 0, done.err

    monkeypatch.setattr(subprocess, "run", run)
    words = ("--steps", "2", "--resolution", "16", "--out", str(tmp_path / "out"))
    monkeypatch.setattr(sys, "argv", ["diffusers_unet.py", *words])
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "diffusers_unet.py"), run_name="__main__")
    assert "8 images from" in capsys.readouterr().out
