"""What is stored while training goes on."""

import hashlib
import json
import os
import signal
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from test_runs import config
from torch import nn

from ajest.errors import UserError
from ajest.storage import checkpoint, packing, writer
from ajest.storage.packing import Packed, pack
from ajest.storage.writer import Writer
from ajest.training import recorder
from ajest.training.recipe import LearningRate
from ajest.training.recorder import COPYING_SHARE, Recorder
from ajest.training.run import execute
from ajest.training.run_folder import read_status
from ajest.training.schedule import Schedule
from conftest import small_recipe
from simulated_device import simulated_cuda

#: Longer than any write of these tests takes; a test that waits so long has failed.
LONG = 30.0


def filled(value):
    return {"w": torch.full((64,), float(value))}


def load(stem):
    return checkpoint.load(stem).tensors["w"][0].item()


@pytest.fixture
def gate(monkeypatch):
    """Holds up the writing of pairs of these names until it is opened; notes which was begun."""

    class Gate(threading.Event):
        names, begun = (), threading.Event()

    gate, plain = Gate(), checkpoint.write

    def write(stem, *rest):
        if stem.name in gate.names:
            gate.begun.set()
            assert gate.wait(LONG)
        plain(stem, *rest)

    monkeypatch.setattr(checkpoint, "write", write)
    yield gate
    gate.set()


@pytest.fixture
def full(monkeypatch):
    """A disk that is full from the first file on whose name begins so."""

    def fill(name):
        plain = checkpoint.write_atomic

        def write(path, *content):
            if path.name.startswith(name):
                raise checkpoint.unwritable(path, OSError(28, "No space left on device"))
            plain(path, *content)

        monkeypatch.setattr(checkpoint, "write_atomic", write)

    return fill


def test_a_packed_file_is_what_safetensors_reads():
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(6, 4, generator=generator)
    tensors = {
        "bool": numbers > 0,
        "transposed": numbers.T,
        "double": numbers.double(),
        "half": numbers.half()[1:],
        "bfloat16": numbers.bfloat16(),
        "byte": torch.arange(3, dtype=torch.uint8),
        "step": torch.tensor(7.0),
        "id": torch.arange(5),
        "none": torch.zeros(0, 3),
        "in training": nn.Parameter(numbers),
    }
    packed = pack(tensors)
    assert packed.settle() >= 0
    found = safetensors.torch.load(b"".join(packed.parts()))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach()), name
    assert len(packed.header) % 8 == 0
    assert safetensors.torch.load(b"".join(pack({}).parts())) == {}


def test_what_is_altered_after_it_was_handed_over_is_stored_as_it_was(tmp_path, gate):
    gate.names = ("a-1",)
    tensors, facts = filled(1), {"losses": [1.0]}
    with Writer() as background:
        background.save(tmp_path / "a-1", tensors, facts)
        tensors["w"].fill_(2)
        facts["losses"].append(2.0)
        gate.set()
    stored = checkpoint.load(tmp_path / "a-1")
    assert stored.tensors["w"][0] == 1
    assert stored.facts["losses"] == [1.0]


def test_copies_that_are_not_there_yet_are_waited_for(tmp_path, monkeypatch):
    """As a device makes them, which goes on beside."""

    def late(tensors):
        packed = packing.pack(filled(0))

        def settle():
            time.sleep(0.05)
            packed.body.copy_(packing.pack(tensors).body)
            return 0.05

        return Packed(packed.header, packed.body, settle)

    copying = []
    monkeypatch.setattr(writer, "pack", late)
    with Writer() as background:
        background.save(tmp_path / "a-1", filled(1), {}, copying.append)
    assert load(tmp_path / "a-1") == 1
    assert copying == [0.05]


def test_a_device_copies_into_pinned_memory_and_training_does_not_wait(tmp_path):
    with simulated_cuda() as device, Writer() as background:
        weights, count = torch.arange(64.0, device="cuda"), torch.arange(3)
        device.restart()
        background.save(tmp_path / "a-1", {"w": weights, "turned": weights.view(8, 8).T, "count": count}, {"step": 1})
        weights.add_(1)  # as the next step would
        background.wait()
        assert device.counts.copies("device to host") == 2
        assert {wait.what for wait in device.counts.waits} <= {"event.synchronize"}  # the thread's
    stored = checkpoint.load(tmp_path / "a-1").tensors
    assert torch.equal(stored["w"], torch.arange(64.0))
    assert torch.equal(stored["turned"], torch.arange(64.0).view(8, 8).T)
    assert torch.equal(stored["count"], torch.arange(3))


def test_pairs_are_written_in_order_one_at_a_time(tmp_path, gate):
    gate.names = ("a-1",)
    seen = []
    with Writer() as background:
        background.save(tmp_path / "a-1", filled(1), {}, lambda _: seen.append(list(checkpoint.stems(tmp_path, "a"))))
        assert background.busy
        assert not checkpoint.exists(tmp_path / "a-1")
        threading.Timer(0.05, gate.set).start()
        background.save(tmp_path / "a-2", filled(2), {})
        assert seen == [[1]]  # after its own pair, before the next
        background.wait()
        assert not background.busy
    assert [load(stem) for stem in checkpoint.stems(tmp_path, "a").values()] == [1, 2]


def test_an_error_is_said_once_and_the_next_pair_can_be_written(tmp_path, full):
    full("a-1")
    with Writer() as background:
        background.save(tmp_path / "a-1", filled(1), {}, lambda _: pytest.fail("nothing was written"))
        with pytest.raises(UserError, match=r"cannot write .*a-1\.safetensors: No space left"):
            background.wait()
        background.check()
        background.save(tmp_path / "a-2", filled(2), {})
    assert load(tmp_path / "a-2") == 2


@pytest.mark.parametrize(("ending", "said"), [(GeneratorExit, UserError), (ZeroDivisionError, ZeroDivisionError)])
def test_on_leaving_an_error_is_said_unless_another_is_on_its_way(tmp_path, full, ending, said):
    full("a-1")

    def steps():
        with Writer() as background:
            background.save(tmp_path / "a-1", filled(1), {})
            raise ending

    with pytest.raises(said):
        steps()


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, gate):
    """The next ones wait for it."""
    gate.names = ("checkpoint-0000010",)
    visible = {}

    def look(step, trainer):
        if step == 30:
            gate.set()
        visible[step] = list(checkpoint.stems(tmp_path, "checkpoint"))

    assert execute(tmp_path, config(), Schedule(checkpoint_every=10, ledger_every=8), progress=look) == "done"
    assert all(visible[step] == [] for step in range(1, 30))
    assert list(checkpoint.stems(tmp_path, "checkpoint")) == [60]


def test_copies_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    """Checkpoints are farther apart than asked for where copying takes long; here a clock that is a step a second."""
    now, saved, plain = [0.0], [], Recorder.save

    def save(self):
        saved.append(self.trainer.steps_taken)
        plain(self)
        self.writer.wait()

    monkeypatch.setattr(Recorder, "save", save)
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: now[0]))
    plainly = packing.pack
    monkeypatch.setattr(writer, "pack", lambda tensors: replace(plainly(tensors), settle=lambda: 20 * COPYING_SHARE))

    def tick(step, trainer):
        now[0] = float(step)

    assert execute(tmp_path, config(), Schedule(checkpoint_every=8), progress=tick) == "done"
    gaps = [after - before for before, after in zip([0, *saved], saved, strict=False)]
    assert gaps[0] == 8  # nothing is known yet
    assert set(gaps[1:-1]) == {20}


def test_a_full_disk_is_met_with_at_a_later_step_and_the_checkpoint_before_is_whole(tmp_path, full, monkeypatch):
    """Long before the next checkpoint."""
    monkeypatch.setattr(Recorder, "_checkpoint_due", lambda self, step: step in (10, 40))
    full("checkpoint-0000040")
    taken = []
    with pytest.raises(UserError, match=r"cannot write .*checkpoint-0000040.*free some space"):
        execute(tmp_path, config(iterations=2000), Schedule(), progress=lambda step, trainer: taken.append(step))
    assert 40 <= taken[-1] < 1000
    assert checkpoint.latest(tmp_path, "checkpoint", pytest.fail).facts["step"] == 10
    assert read_status(tmp_path) == {}


def test_a_full_disk_at_the_very_end_leaves_the_run_unfinished(tmp_path, full):
    full("checkpoint-0000060")
    with pytest.raises(UserError, match=r"cannot write .*checkpoint-0000060"):
        execute(tmp_path, config(), Schedule(checkpoint_every=10))
    assert read_status(tmp_path) == {}
    assert checkpoint.latest(tmp_path, "checkpoint", pytest.fail).facts["step"] >= 10


def test_a_run_that_is_told_to_end_waits_for_what_is_being_written_and_saves_its_last_step(tmp_path, gate, signals):
    gate.names = ("checkpoint-0000010",)

    def end(step, trainer):
        if step == 20:
            threading.Timer(0.05, gate.set).start()
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path, config(), Schedule(checkpoint_every=10), progress=end)
    assert list(checkpoint.stems(tmp_path, "checkpoint")) == [10, 21]


def test_a_run_that_diverges_keeps_the_state_before_the_bad_step_however_rare_checkpoints_are(tmp_path):
    wild = replace(config(), recipe=small_recipe(learning_rate=LearningRate(peak=1e30)))
    assert execute(tmp_path, wild, Schedule()) == "diverged"
    status = read_status(tmp_path)
    assert status["step"] > 0
    assert checkpoint.latest(tmp_path, "checkpoint", pytest.fail).facts["step"] == status["step"]


def test_the_facts_stand_beside_the_digest_of_the_very_file(tmp_path):
    with Writer() as background:
        background.save(tmp_path / "a-1", filled(1), {"step": 1})
    data = (tmp_path / "a-1.safetensors").read_bytes()
    facts = json.loads((tmp_path / "a-1.json").read_text())
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert facts["bytes"] == len(data)
