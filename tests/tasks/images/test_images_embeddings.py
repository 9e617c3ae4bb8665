"""Images with embeddings in the place of classes: read, drawn, learned, sampled, guided both ways."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ajest.diffusion.conditions import is_none
from ajest.errors import UserError
from ajest.runtime.seeding import Streams, generator
from ajest.selection.catalogue import arms_named
from ajest.selection.flow import Networks
from ajest.tasks.base import Guided, Measurement
from ajest.tasks.images.data import open_images
from ajest.tasks.images.data.embeddings import read_embeddings
from ajest.tasks.images.setup import image_task
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe
from image_files import encoded, folder

WIDTH = 6


def shapes(split):
    return open_images(("shapes:256" if split == "train" else "shapes:128",), 16, split, warn=lambda _: None)


def written(path, shape=(WIDTH,), **changes):
    """Embeddings of all shapes: of the learned ones, then of the held-out."""
    ids = np.concatenate([shapes(split).ids for split in ("train", "val")])
    values = np.random.default_rng(0).normal(size=(len(ids), *shape)).astype(np.float32)
    np.savez(path, **{"ids": ids, "embeddings": values, **changes})
    return str(path)


@pytest.fixture
def task(tmp_path):
    return small_images(embeddings=(written(tmp_path / "e.npz"),), label_dropout=0.25)


def test_each_image_is_drawn_with_its_own_embedding_or_none(task, tmp_path):
    assert (task.classes, task.embedding, task.conditional) == ((), (WIDTH,), True)
    assert "told 6 features" in task.subject
    stored = np.load(tmp_path / "e.npz")
    batch = task.source("cpu").draw(400, generator(0, "d"))
    lost = is_none(batch.label)
    assert 60 < lost.sum() < 140
    own = torch.from_numpy(stored["embeddings"])[batch.id]
    assert torch.equal(batch.label, torch.where(lost[:, None], 0.0, own))
    assert list(stored["ids"][:256]) == list(task.example_names())


def test_another_file_of_embeddings_is_another_data_set(task, tmp_path):
    other = written(tmp_path / "other.npz", embeddings=np.ones((384, WIDTH), np.float32))
    with pytest.raises(UserError, match="holds other images than this run was made with"):
        replace(task, embeddings=(other,)).source("cpu")
    moved = tmp_path / "moved.npz"
    moved.write_bytes((tmp_path / "e.npz").read_bytes())
    assert replace(task, embeddings=(str(moved),)) == task
    replace(task, embeddings=(str(moved),)).source("cpu")


@pytest.mark.parametrize("name", ["baseline", "ajest", "hard-running"])
def test_arms_train_told_embeddings(task, name):
    (arm,) = arms_named((name,), chunks=4)
    guide = task.network("guide", 1).eval().requires_grad_(False)
    trainer = Trainer(
        task.source("cpu"), Networks(task.network("learner", 0), guide), small_recipe(super_batch=32), arm, Streams(0)
    )
    losses = [trainer.step().loss for _ in range(3)]
    assert all(np.isfinite(losses))


def test_samples_follow_their_embeddings_and_both_guidances(task, tmp_path):
    network = task.network("learner", 0).eval()
    with torch.no_grad():
        network.raw.out_gain.fill_(1.0)  # an untrained one answers nothing
        for name, gain in network.named_parameters():
            if name.endswith("emb_gain"):
                gain.fill_(1.0)
    x, sigma = torch.randn(2, 3, 16, 16, generator=generator(0, "x")), torch.tensor([0.5, 2.0])
    told = torch.randn(2, WIDTH, generator=generator(0, "e"))
    assert not torch.equal(network(x, sigma, told), network(x, sigma, told.flip(0)))
    torch.testing.assert_close(network(x, sigma, 3 * told), network(x, sigma, told))  # by its direction
    assert torch.equal(network(x, sigma, torch.zeros_like(told)), network(x, sigma, None))
    found = task.evaluate(Guided(network), Measurement(70, 0, tmp_path, keep_tensors=True))
    assert "labels" not in found.tensors
    assert all(np.isfinite(list(found.metrics.values())))
    first, second = task.sampler.asked(network, [(0, 1), (1, 1)], "cpu")
    assert not torch.equal(first, second)  # one noise, two embeddings
    sheets = task.write_samples(network, tmp_path / "out", n=2)
    assert all(path.exists() for path in sheets)


def test_samples_are_told_embeddings_of_images_all_over_the_set(task):
    """Images of a folder lie beside each other: the first few samples must not be of its first classes alone."""
    known = task.sampler.embeddings()
    told = task.sampler._told(slice(0, 16))
    at = [int((known == one).all(1).nonzero()) for one in told]
    assert sorted(number // (len(known) // 16) for number in at) == list(range(16))
    assert torch.equal(task.sampler._told(slice(5, 9)), told[5:9])
    assert torch.equal(task.sampler._told(slice(len(known), len(known) + 3)), told[:3])


def test_held_out_images_that_are_the_learned_ones_are_refused_with_embeddings_too(tmp_path):
    names = [f"{k:03}.png" for k in range(160)]
    colours = {name: encoded(Image.new("RGB", (16, 16), (k, 0, 0))) for k, name in enumerate(names)}
    pets = (folder(tmp_path / "pets", colours),)
    told = saved(tmp_path / "e.npz", {"ids": names, "embeddings": np.eye(160)})
    with pytest.raises(UserError, match="holds the training images themselves"):
        image_task(pets, pets, resolution=16, embeddings=(told,), warn=lambda _: None)


def test_no_least_loss_is_claimed_where_each_image_has_a_condition_of_its_own(task, tmp_path):
    assert task.optimal_loss(Measurement(70, 0, tmp_path)) is None


def test_tokens_are_for_models_that_read_them(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    told = (written(tmp_path / "tokens.npz", (4, 12)),)
    with pytest.raises(UserError, match="takes one embedding an image, not 4 tokens"):
        small_images(embeddings=told)
    from ajest.integrations.diffusers import read_model

    model = diffusers.SanaTransformer2DModel(
        sample_size=16, in_channels=3, out_channels=3, patch_size=2, num_layers=1, num_attention_heads=2,
        attention_head_dim=8, num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16,
        caption_channels=12,
    )  # fmt: skip
    folder = tmp_path / "model"
    model.save_config(folder)
    (folder / "scheduler_config.json").write_text(
        json.dumps({"_class_name": "DDPMScheduler", "prediction_type": "epsilon", "clip_sample": False})
    )
    settings = read_model(folder)
    task = small_images(learner=settings, guide=settings, embeddings=told, label_dropout=0.1, sigma_max=20.0)
    network = task.network("learner", 0).eval()
    batch = task.source("cpu").draw(2, generator(0, "d"))
    told_both = torch.randn(2, 4, 12, generator=generator(0, "e"))
    found = network(batch.x, batch.sigma, told_both)
    assert not torch.equal(found, network(batch.x, batch.sigma, told_both.flip(0)))
    assert torch.equal(network(batch.x, batch.sigma, torch.zeros_like(told_both)), network(batch.x, batch.sigma, None))
    with pytest.raises(UserError, match="takes tokens of 12 numbers, and the embeddings have 6"):
        small_images(learner=settings, guide=settings, embeddings=(written(tmp_path / "e.npz"),))


REFUSED = {
    "there is no file of embeddings": lambda path: read_embeddings([str(path / "none.npz")]),
    "lacks embeddings: write it by np.savez": lambda path: of(path, {"ids": ["a"]}),
    "give an id and a row of floats": lambda path: of(path, {"ids": ["a"], "embeddings": [[1, 2]]}),
    "holds 2 ids and embeddings": lambda path: of(path, {"ids": ["a", "b"], "embeddings": [[1.0]]}),
    "not finite for b": lambda path: of(path, {"ids": ["a", "b"], "embeddings": [[1.0], [np.nan]]}),
    "twice of a": lambda path: of(path, {"ids": ["a", "a"], "embeddings": [[1.0], [2.0]]}),
    "256 of 256 images have no embedding": lambda path: of(path, {"ids": ["a"], "embeddings": [[1.0]]}).of(
        shapes("train")
    ),
    "leave out --classes": lambda path: small_images(embeddings=(written(path / "e.npz"),), classes=2),
    "they must be alike": lambda path: read_embeddings(
        [written(path / "e.npz"), saved(path / "f.npz", {"ids": ["a"], "embeddings": [[1.0]]})]
    ),
    "t.npz is no .npz of embeddings": lambda path: read_embeddings([text(path / "t.npz")]),
    "x.npy is no .npz of embeddings": lambda path: read_embeddings([array(path / "x.npy")]),
    "d.npz is no .npz of embeddings": lambda path: read_embeddings([damaged(path / "d.npz")]),
}  # fmt: skip


def saved(path, arrays):
    np.savez(path, **{name: np.array(value) for name, value in arrays.items()})
    return str(path)


def of(path, arrays):
    return read_embeddings([saved(path / "x.npz", arrays)])


def array(path):
    np.save(path, np.eye(3))
    return str(path)


def damaged(path):
    """A byte within the packed numbers."""
    np.savez_compressed(path, ids=np.array(["a", "b"]), embeddings=np.random.default_rng(0).normal(size=(2, 200)))
    held = bytearray(path.read_bytes())
    held[len(held) // 2] ^= 255
    path.write_bytes(held)
    return str(path)


def text(path):
    path.write_text("no archive")
    return str(path)


@pytest.mark.parametrize("said", REFUSED)
def test_bad_embeddings_are_one_clear_line(said, tmp_path):
    with pytest.raises(UserError, match=said) as caught:
        REFUSED[said](tmp_path)
    assert "\n" not in str(caught.value)


def test_the_command_trains_and_samples_with_embeddings(command, tmp_path):
    data = ("--data", "shapes:256", "--validation", "shapes:128", "--resolution", "16", "--network", "nano")
    told = written(tmp_path / "e.npz")
    run = tmp_path / "run"
    done = command("train", "images", *data, "--embeddings", told, "--label-dropout", "0.1", "--iterations", "2",
                   "--super-batch", "16", "--out", run)  # fmt: skip
    assert done.code == 0, done.err
    done = command("sample", run, "--seeds", "0-1", "--cfg", "2", "--sampler-steps", "2", "--out", tmp_path / "s")
    assert done.code == 0, done.err
    done = command("train", "vectors", "--embeddings", told, "--out", tmp_path / "v")
    assert done.code == 2
    assert "--embeddings" in done.err
