"""Drawing on the device: each process its part, with the same bits as one alone; images read one step ahead."""

import gc
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_flow import Noted

from ajest.diffusion.batch import Batch, DeferredBatch
from ajest.diffusion.denoising import LogNormal
from ajest.diffusion.noising import Levels, Noising, Weighting, noised
from ajest.errors import UserError
from ajest.runtime import distributed
from ajest.runtime.seeding import Streams, generator
from ajest.runtime.transfer import to_device
from ajest.selection.catalogue import ARMS
from ajest.selection.flow import Networks, Plan, draw, draw_noised
from ajest.storage.config import from_json, to_json
from ajest.tasks.images.pixels import Loading
from ajest.tasks.images.source import ImageSource
from ajest.tasks.sources import TensorSource
from ajest.training.recipe import Recipe
from ajest.training.shared_draws import SharedDraws
from ajest.training.trainer import Trainer
from conftest import small_images, small_recipe, small_task
from simulated_device import simulated_cuda

ON_DEVICE = Streams(3, drawing="device")
FIELDS = ("x", "sigma", "weight", "id", "target", "label")


def vectors(device="cpu"):
    x = torch.randn(50, 3, generator=generator(0))
    return TensorSource(x, LogNormal(-1.2, 1.2), label=torch.arange(50) % 4, device=device, label_dropout=0.5)


#: Everything that an arm can change of the noise.
IN_ALL = Noising(Levels("sech"), True, True, Weighting("min-snr"), "x0", 8)

SOURCES = {
    "tree": lambda device="cpu": small_task().source(device),
    "images": lambda device="cpu": small_images(flip=True, label_dropout=0.5).source(device),
    "vectors": vectors,
    "noised": lambda device="cpu": noised(vectors(device), IN_ALL, 100),
}


@pytest.fixture
def simulated():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with simulated_cuda() as device:
        yield device


def same(a, b):
    for name in FIELDS:
        one, other = getattr(a, name), getattr(b, name)
        assert (one is None) == (other is None), name
        assert one is None or torch.equal(one, other), name


@pytest.fixture(params=SOURCES)
def source(request):
    return SOURCES[request.param]()


def test_every_row_can_be_drawn_alone(source):
    whole = draw_noised(source, ON_DEVICE, 100, 5, 0)
    stream, eps = ON_DEVICE.counter("draw", 5), ON_DEVICE.counter("draw", 5, "noise", 0)
    for rows, index in ((range(30, 61), slice(30, 61)), (torch.tensor([99, 3, 3]), torch.tensor([99, 3, 3]))):
        same(source.draw_rows(rows, stream, eps), whole[index])
        outline = source.outline(rows, stream)
        assert outline.x.numel() == 0
        for name in ("sigma", "weight", "id", "label"):
            part = getattr(outline, name)
            assert part is None or torch.equal(part, getattr(whole, name)[index])
    same(draw_noised(source, ON_DEVICE, 10, 5, 0), whole[:10])


def test_another_noise_draw_changes_the_noise_alone(source):
    first, second = (source.complete(draw_noised(source, ON_DEVICE, 60, 2, again)) for again in (0, 1))
    for name in ("sigma", "id", "label"):
        assert getattr(first, name) is None or torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.isclose(first.x, second.x).any()
    assert not torch.equal(first.x, draw_noised(source, ON_DEVICE, 60, 3, 0).x)


def test_examples_are_distributed_as_those_of_the_host(source):
    """Means of 20,000, within 4.5 standard errors of a difference."""
    host, device = (draw_noised(source, Streams(3, drawing=where), 20_000, 0, 0) for where in ("host", "device"))
    for name in ("x", "sigma", "id", "label"):
        a, b = (getattr(batch, name) for batch in (host, device))
        if a is None:
            continue
        a, b = (v.double().log() if name == "sigma" else v.double().asinh() for v in (a, b))
        a, b = (v.flatten(1).mean(1) if v.dim() > 1 else v for v in (a, b))
        assert abs(a.mean() - b.mean()) < 4.5 * (a.std() * (2 / len(a)) ** 0.5), name
        assert a.std() / b.std() == pytest.approx(1, abs=0.1), name


@pytest.mark.parametrize("kept", [slice(3, 20), torch.tensor([40, 2, 9])])
def test_a_deferred_batch_draws_what_is_asked_of_it(kept):
    source, drawn = vectors(), []
    stream, eps = ON_DEVICE.counter("draw", 1), ON_DEVICE.counter("draw", 1, "noise", 0)

    def drawing(rows):
        drawn.append(len(rows))
        return source.draw_rows(rows, stream, eps)

    batch = DeferredBatch(range(64), source.outline(range(64), stream), drawing)
    assert len(batch) == 64
    whole = draw_noised(source, ON_DEVICE, 64, 1, 0)
    assert torch.equal(batch[kept][:2].id, whole[kept].id[:2])
    assert not drawn
    same(batch[kept].whole(), whole[kept])
    same(batch[kept][1:], whole[kept][1:])
    assert batch[kept].to("cpu").x.shape == whole[kept].x.shape
    assert max(drawn) < 20


@pytest.mark.parametrize("processes", [2, 3])
def test_parts_of_processes_are_those_of_one(source, processes, monkeypatch):
    plan = Plan(4, 0.5, ARMS["ajest"].kinds()[0], 50, 2, measures=True, watches=False)
    one = draw(source, ON_DEVICE, plan, Noted())
    monkeypatch.setattr(distributed, "world", lambda: processes)
    parts = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        drawn = draw(source, ON_DEVICE, plan, Noted())
        parts.append(drawn.parts)
        assert torch.equal(drawn.batch.id, one.batch.id)
        assert torch.equal(drawn.batch.sigma, one.batch.sigma)
    for again in range(2):
        whole = one.parts[again]
        pieces = [
            None if getattr(whole, name) is None else torch.cat([getattr(p[again], name) for p in parts])
            for name in FIELDS
        ]
        together = Batch(*pieces)
        # The tree's target is computed by each process from its part, where the order of sums depends on its size.
        torch.testing.assert_close(together.target, whole.target, rtol=1e-5, atol=1e-6)
        same(replace(together, target=None), replace(whole, target=None))


def test_a_source_of_the_host_alone_says_so():
    class Old:
        def draw(self, count, generator, eps=None):
            raise AssertionError

        def complete(self, batch):
            return batch

    with pytest.raises(UserError, match=r"^the task's source, Old, draws on the host alone: leave out"):
        draw_noised(Old(), ON_DEVICE, 4, 0, 0)
    with pytest.raises(UserError, match="the task's source, Old, draws"):
        draw_noised(SharedDraws(Old()), ON_DEVICE, 4, 0, 0)


def test_shared_draws_share_those_of_the_device():
    source = small_task().source("cpu")
    shared = SharedDraws(source)
    first, again = (draw_noised(shared, ON_DEVICE, 40, 1, 0) for _ in range(2))
    assert first is again
    assert shared.complete(first) is shared.complete(again)
    same(first, draw_noised(source, ON_DEVICE, 40, 1, 0))
    assert draw_noised(shared, ON_DEVICE, 40, 2, 0) is not first


def test_a_recipe_chooses_and_a_run_goes_on_with_the_same_bits():
    recipe = small_recipe(drawing="device")
    assert from_json(Recipe, to_json(recipe), "here") == recipe
    assert "drawing" not in (old := {k: v for k, v in to_json(Recipe()).items() if k != "drawing"})
    assert from_json(Recipe, old, "here").drawing == "host"

    def made(recipe):
        task = small_task()
        networks = Networks(task.network("learner", 0), task.network("guide", 1).eval().requires_grad_(False))
        return Trainer(task.source("cpu"), networks, recipe, replace(ARMS["ajest"], chunks=4), Streams(0))

    unbroken, first, then, host = made(recipe), made(recipe), made(recipe), made(small_recipe())
    for _ in range(4):
        unbroken.step()
        host.step()
    for _ in range(2):
        first.step()
    then.restore(*first.state())
    for _ in range(2):
        then.step()
    ends = [trainer.state()[0] for trainer in (unbroken, then, host)]
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())
    assert not torch.equal(ends[0]["example_counts/drawn"], ends[2]["example_counts/drawn"])


def cold(tmp_path, device="cpu", **loading):
    """A source that reads from a memory map."""
    path = tmp_path / "images.npy"
    rng = np.random.default_rng(0)
    np.save(path, rng.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8))
    images = np.load(path, mmap_mode="r")
    return ImageSource(images, None, LogNormal(-0.4, 1.0), device=device, loading=Loading(**loading))


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ajest-pixels")]


@pytest.mark.parametrize("where", ["host", "device"])
def test_images_are_read_ahead_with_the_same_bits(tmp_path, where, monkeypatch):
    plain, ahead = cold(tmp_path), cold(tmp_path, ahead=True)
    reads = []
    read = ahead._pixels._read

    def noted(*args):
        reads.append(threading.current_thread().name)
        return read(*args)

    monkeypatch.setattr(ahead._pixels, "_read", noted)
    streams = Streams(1, drawing=where)
    for step in range(4):
        plan = Plan(step, 0.0, ARMS["learnable-draws"].kinds()[0], 12, 2, measures=True, watches=False)
        one, other = (draw(source, streams, plan, Noted()) for source in (plain, ahead))
        for a, b in zip(one.parts, other.parts, strict=True):
            same(a, b)
    same(draw_noised(ahead, streams, 9, 77, 0), draw_noised(plain, streams, 9, 77, 0))
    ahead._pixels._reader.shutdown()
    here = threading.current_thread().name
    # One read for a step, whatever its noise draws: the first and the unforeseen here, the others by the reader.
    assert [name == here for name in reads].count(True) == 2
    assert len(reads) == 6


def test_the_reader_ends_with_its_source(tmp_path):
    source = cold(tmp_path, ahead=True)
    source.expect(range(8), Streams(0).generator("draw", 1))
    (reader,) = readers()
    del source
    gc.collect()
    reader.join(10)
    assert not reader.is_alive()
    plain = cold(tmp_path)
    plain.expect(range(8), Streams(0).generator("draw", 1))
    assert not readers()


def test_images_live_where_there_is_room(monkeypatch):
    images, gpu = np.zeros((10, 3, 8, 8), np.uint8), torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (4 * images.nbytes, 10**12))
    assert Loading().keeps(images, gpu)
    assert not Loading().keeps(np.zeros((11, 3, 8, 8), np.uint8), gpu)
    assert Loading(images.nbytes).keeps(images, gpu)
    assert not Loading(images.nbytes - 1).keeps(images, gpu)
    assert not Loading(10**12).keeps(images, torch.device("cpu"))
    with pytest.raises(UserError, match="resident_bytes must be at least 0, not -1"):
        Loading(-1)


def test_columns_of_another_order_are_read_too(tmp_path):
    images = np.asfortranarray(np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8))
    fortran, plain = (ImageSource(i, None, LogNormal(0, 1)) for i in (images, np.ascontiguousarray(images)))
    same(draw_noised(fortran, Streams(0), 8, 0, 0), draw_noised(plain, Streams(0), 8, 0, 0))


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("where", ["host", "device"])
def test_drawing_on_a_gpu_never_waits(kind, where, simulated):
    """From the host one pinned copy a draw; on the device none. Numbers that are compared are those of the CPU."""
    source = SOURCES[kind]("cuda")
    streams = Streams(3, drawing=where)
    plan = Plan(4, 0.5, ARMS["ajest"].kinds()[0], 24, 2, measures=True, watches=False)
    draw_noised(source, streams, 8, 99, 0)  # tables are brought once
    simulated.restart()
    drawn = draw(source, streams, plan, Noted())
    assert simulated.counts.syncs == 0, simulated.counts.table()
    each = 2 if kind == "noised" else 1  # the order of the strata is a copy of its own
    assert simulated.counts.copies("host to device") == (2 * each if where == "host" else 0)
    there = draw(SOURCES[kind](), streams, plan, Noted()).batch
    for name in ("id", "label", "sigma"):
        a, b = getattr(drawn.batch, name), getattr(there, name)
        assert b is None or torch.equal(a.cpu(), b), name


@pytest.mark.parametrize("where", ["host", "device"])
def test_reading_ahead_for_a_gpu_never_waits(tmp_path, where, simulated):
    source, plain = cold(tmp_path, "cuda", resident_bytes=0), cold(tmp_path)
    assert not source._pixels.resident
    streams = Streams(3, drawing=where)
    for step in range(3):
        plan = Plan(step, 0.5, ARMS["ajest"].kinds()[0], 24, 1, measures=True, watches=False)
        simulated.restart()
        drawn = draw(source, streams, plan, Noted())
        assert simulated.counts.syncs == 0, simulated.counts.table()
        assert simulated.counts.copies("host to device") == (2 if where == "host" else 1)
        assert torch.equal(drawn.batch.target.cpu(), draw(plain, streams, plan, Noted()).batch.target)


@pytest.mark.parametrize("tensors", [(), (torch.arange(5), torch.rand(3, 2).T, torch.zeros(0), torch.tensor(True))])
def test_packed_tensors_arrive_as_they_were(tensors, simulated):
    simulated.restart()
    found = to_device("cuda", *tensors)
    assert simulated.counts.syncs == 0
    assert simulated.counts.copies("host to device") <= 1
    for a, b in zip(found, tensors, strict=True):
        assert (a.dtype, a.shape, a.device.type) == (b.dtype, b.shape, "cuda")
        assert torch.equal(a.cpu(), b)
