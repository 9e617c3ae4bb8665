"""What a run's time is booked as: by phase, warm-up and compilation apart, by a device's own clock."""

import json

import pytest
import torch

from ajest import Counts, Ledger
from ajest.runtime.compiling import CompileCounts
from ajest.training import ledger as ledgers
from ajest.training.ledger import WARMUP_STEPS


class Device:
    """A CUDA device that does what it is given when it is told to; its events are stamped by a clock of its own."""

    def __init__(self):
        self.clock, self.given, self.waits = 0.0, [], 0

    def work(self, seconds):
        self.given.append(seconds)

    def run(self, until=None):
        """Do what was given, all of it or up to an event."""
        while self.given:
            thing = self.given.pop(0)
            if isinstance(thing, float):
                self.clock += thing
            else:
                thing.at = self.clock
            if thing is until:
                return

    def event(self, enable_timing):
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, device):
        self.device, self.at = device, None

    def record(self, stream):
        assert stream == "the stream of cuda:1"
        self.device.given.append(self)

    def query(self):
        return self.at is not None

    def synchronize(self):
        self.device.waits += 1
        self.device.run(self)

    def elapsed_time(self, end):
        return 1000 * (end.at - self.at)


@pytest.fixture
def device(monkeypatch):
    made = Device()
    monkeypatch.setattr(torch.cuda, "Event", made.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    return made


def timed(ledger, device, kind="a", update=4.0):
    with ledger.phase("draw"):
        device.work(1.0)
    device.work(8.0)  # beside every phase
    for _ in range(2):
        with ledger.phase("update"):
            device.work(update / 2)
    return ledger.close_step(kind, Counts(10, 0, 10), 1.0)


def test_a_device_is_timed_without_being_waited_for(device):
    ledger = Ledger(torch.device("cuda:1"))
    for _ in range(WARMUP_STEPS + 3):
        timed(ledger, device)
        device.run()  # by the end of the next step it has come so far
    assert device.waits == 0
    assert ledger.counts.drawn == 10 * (WARMUP_STEPS + 3)
    assert ledger.total_seconds == pytest.approx(2 * 5)  # one step behind
    ledger.settle()
    ledger.settle()
    assert device.waits == 0
    assert ledger.seconds["update"] == pytest.approx(3 * 4)
    assert ledger.seconds["draw"] == pytest.approx(3)
    assert ledger.warmup_seconds == pytest.approx(WARMUP_STEPS * 5)
    assert ledger.last_step == pytest.approx(5)


def test_who_looks_at_the_seconds_of_a_step_waits_for_it(device):
    ledger = Ledger(torch.device("cuda:1"))
    seconds = timed(ledger, device)
    assert device.waits == 0
    assert dict(seconds) == pytest.approx({"draw": 1.0, "update": 4.0})
    assert device.waits == 1
    timed(ledger, device)
    ledger.settle()
    assert device.waits == 2
    assert ledger.warmup_seconds == pytest.approx(10)


def test_a_loop_that_waits_for_nothing_is_one_step_ahead_of_its_device_at_most(device):
    ledger = Ledger(torch.device("cuda:1"))
    for number in range(5):
        timed(ledger, device)
        assert device.waits == number


def test_warm_up_is_by_kind_and_counts_are_exact():
    ledger = Ledger()
    for i in range(2 * WARMUP_STEPS):
        with ledger.phase("update"):
            sum(range(1000))
        ledger.close_step("a" if i % 2 else "b", Counts(10, 10, 2), 5.0)
    assert ledger.total_seconds == 0  # no kind is past its first steps
    assert ledger.warmup_seconds > 0
    for _ in range(3):
        with ledger.phase("draw"):
            pass
        with ledger.phase("update"):
            sum(range(1000))
        step = ledger.close_step("a", Counts(10, 10, 2), 5.0)
    assert set(step) == {"draw", "update"}
    assert ledger.last_step == sum(step.values())
    assert 0 < ledger.seconds["draw"] < ledger.seconds["update"] < 1
    assert ledger.counts == Counts(110, 110, 22)
    assert ledger.flops == 55
    assert ledger.by_kind == {"a": WARMUP_STEPS + 3, "b": WARMUP_STEPS}
    before = ledger.total_seconds
    other = Ledger()
    other.restore(json.loads(json.dumps(ledger.facts())))
    assert other.facts() == ledger.facts()
    with other.phase("draw"):
        pass
    other.close_step("a", Counts(), 0.0)
    assert other.total_seconds == before  # a restart warms up again


def test_a_step_in_which_something_is_compiled_is_warm_up(monkeypatch):
    totals = CompileCounts(compilations=7, eager_calls=2, seconds=90.0)  # of others in this process

    def add(**more):
        nonlocal totals
        totals = CompileCounts(**{k: getattr(totals, k) + more.get(k, 0) for k in vars(totals)})

    monkeypatch.setattr(ledgers.compiling, "so_far", lambda: totals)
    ledger = Ledger()

    def step(**compiled):
        before = ledger.total_seconds, ledger.warmup_seconds
        with ledger.phase("draw"):
            pass
        with ledger.phase("update"):
            add(**compiled)
        ledger.close_step("a", Counts(), 0.0)
        add(compilations=1, eager_calls=1, seconds=1.0)  # between two steps: none of theirs
        return ledger.total_seconds > before[0], ledger.warmup_seconds > before[1]

    for _ in range(WARMUP_STEPS):
        assert step() == (False, True)
    assert step() == (True, False)
    assert step(compilations=2, seconds=0.25) == (False, True)
    assert step(eager_calls=3) == (True, False)
    assert (ledger.compilations, ledger.eager_calls, ledger.compile_seconds) == (2, 3, 0.25)
    facts = json.loads(json.dumps(ledger.facts()))
    again = Ledger()
    again.restore(facts)
    assert again.facts() == facts
    older = {k: v for k, v in facts.items() if k not in ("compilations", "eager_calls", "compile_seconds")}
    again.restore(older)
    assert (again.compilations, again.eager_calls, again.compile_seconds) == (0, 0, 0.0)
