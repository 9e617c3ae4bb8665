"""Bytes that are nearly right, names that mean harm: refused in one line or read, and nothing else."""

import resource
import time

import pytest
from harm import FULL
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutants
from readers import BOMB, OUTSIDE, READERS, archive, drawn

#: 12,000 for each of the readers are 144,000 in all.
INPUTS = 12_000 if FULL else 60


@pytest.mark.parametrize("name", READERS)
def test_a_reader_accepts_or_refuses_whatever_it_is_given(name):
    reader, before = READERS[name], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=INPUTS)
    @given(mutants(reader.seeds))
    def holds(data):
        start = time.monotonic()
        reader.accepts(data)
        assert time.monotonic() - start < 20

    assert reader.accepts(reader.seeds[0])
    holds()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_bomb_is_refused_and_names_that_lead_outside_are_left_out():
    reader = READERS["zip"]
    assert not reader.accepts(BOMB)
    assert reader.accepts(OUTSIDE)  # for the one that lies within


ODD = ["../a.png", "/a.png", "x/../../b.png", "C:\\c.png", "cat/\n.png", "-.png", "cat//d.png", "./e.png"]


@settings(max_examples=INPUTS)
@given(st.sets(st.sampled_from(ODD) | st.text(max_size=12).map(lambda name: f"{name}.png"), max_size=6))
def test_an_archive_may_have_any_names(names):
    writable = {name for name in names if name.isprintable()} | {name for name in names if name in ODD}
    READERS["zip"].accepts(archive(dict.fromkeys(writable, drawn())))
