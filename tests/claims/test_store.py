"""Verdicts outlive their benches: they are stored, joined and chosen from, and nothing of them changes."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_up_claims import judged

from ajest.claims.catalogue import CLAIMS, claims_named
from ajest.claims.page import render
from ajest.claims.settings import SETTINGS
from ajest.claims.store import VERDICTS, Verdicts, joined, narrowed, read_verdicts, write_verdicts
from ajest.cli.claims import claims
from ajest.errors import UserError
from ajest.storage.checkpoint import Corrupt, write_json, write_sealed
from ajest.training.probe import Estimate
from forked import FORKED

LEVELS = Verdicts(("ajest claims --only laplace",), (judged(CLAIMS["laplace"], -0.3, 0.0, control=0.1),))
WEIGHTS = Verdicts(("ajest claims --only min-snr",), (judged(CLAIMS["min-snr"], -0.3),))


def test_what_is_stored_makes_the_same_page(tmp_path):
    bounded = replace(judged(CLAIMS["infonoise"], 0.3), bound=Estimate(0.1, 0.0, 0.2), untuned=("infonoise",))
    nothing = judged(CLAIMS["min-snr"], 0.0).tests
    kept = joined([LEVELS, Verdicts(("a command",), (replace(bounded, null=nothing),))])
    write_verdicts(tmp_path / VERDICTS, kept)
    for where in (tmp_path, tmp_path / VERDICTS):
        again = read_verdicts(where)
        assert again.commands == kept.commands
        assert render(again) == render(kept)
        assert [test.gaps for one in again.found for test in one.tests] == [
            test.gaps for one in kept.found for test in one.tests
        ]


def test_files_of_another_kind_are_named_with_what_is_wanted(tmp_path, refused):
    write_json(tmp_path / "results.json", {"rows": []})
    write_sealed(tmp_path / "tuning.json", {"rates": {}})
    write_json(tmp_path / "list.json", [1])
    (tmp_path / "results.csv").write_text("arm,mean\n")
    (tmp_path / "x.npz").write_bytes(b"PK\x00\xff")
    for name in ("results.json", "tuning.json", "list.json", "results.csv", "x.npz"):
        says = f"{name} holds no verdicts on claims: name the claims.json that `ajest claims` wrote, or its folder$"
        refused("claims", "--join", tmp_path / name, "--out", tmp_path / "both", says=says)
    (tmp_path / VERDICTS).write_text("{")  # of this kind, and damaged
    with pytest.raises(Corrupt, match=r"claims\.json cannot be read"):
        read_verdicts(tmp_path)


def test_joined_verdicts_have_all_commands_and_the_order_of_the_catalogue():
    elsewhere = Verdicts(WEIGHTS.commands, (replace(WEIGHTS.found[0], setting=SETTINGS["digits"]),))
    together = joined([elsewhere, WEIGHTS, LEVELS])
    assert together.commands == ("ajest claims --only min-snr", "ajest claims --only laplace")
    assert [(one.claim.name, one.setting.name) for one in together.found] == [
        ("laplace", "tree"), ("min-snr", "tree"), ("min-snr", "digits"),
    ]  # fmt: skip


def test_which_of_two_counts_is_not_for_a_page_to_say():
    with pytest.raises(UserError, match="min-snr on tree at equal time is judged in two of these: leave one out"):
        joined([WEIGHTS, LEVELS, WEIGHTS])


def test_some_claims_settings_and_budgets_alone():
    sampled = replace(WEIGHTS.found[0], end="samples")
    both = joined([WEIGHTS, LEVELS, Verdicts((), (sampled,))])
    assert narrowed(both, claims_named(("weights",)), ("tree",), ("time", "samples")).found == (
        WEIGHTS.found[0],
        sampled,
    )
    assert narrowed(both, claims_named(()), ("tree", "digits"), ("samples",)).found == (sampled,)
    with pytest.raises(UserError, match="none of these claims is judged there"):
        narrowed(both, claims_named(("guides",)), ("tree",), ("time",))


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(UserError, match="is not there: name the claims"):
        read_verdicts(tmp_path)
    path = tmp_path / VERDICTS
    write_verdicts(path, WEIGHTS)
    text = path.read_text()
    path.write_text(text.replace('"low"', '"law"', 1))
    with pytest.raises(Corrupt):
        read_verdicts(path)


def test_a_claim_that_is_not_known_here_is_named(tmp_path):
    path = tmp_path / VERDICTS
    write_verdicts(path, Verdicts((), (replace(WEIGHTS.found[0], claim=replace(CLAIMS["min-snr"], name="max-snr")),)))
    with pytest.raises(UserError, match=r"unknown claim .max-snr.: did you mean .min-snr."):
        read_verdicts(path)


def test_the_command_joins_and_runs_nothing(tmp_path, monkeypatch):
    write_verdicts(tmp_path / "here.json", WEIGHTS)
    (tmp_path / "there").mkdir()
    write_verdicts(tmp_path / "there" / VERDICTS, LEVELS)
    done = FORKED.run(["ajest", "claims", "--join", "here.json", "there", "--out", "all"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Of 2 claims judged at equal time, certainly better somewhere: 2")
    assert {p.name for p in (tmp_path / "all").iterdir()} == {"claims.md", VERDICTS, "figures"}
    page = (tmp_path / "all" / "claims.md").read_text()
    assert "Made by `ajest claims --only min-snr` and `ajest claims --only laplace`." in " ".join(page.split())
    monkeypatch.chdir(tmp_path)
    claims(join=(Path("all"),), only=("levels",), out=Path("some"))
    assert [one.claim.name for one in read_verdicts(tmp_path / "some").found] == ["laplace"]
    for out in (None, Path("all")):
        with pytest.raises(UserError, match="--join writes one page of all: name a folder of its own"):
            claims(join=(Path("all"),), out=out)
    for folder in (tmp_path / "all", tmp_path / "some" / ".." / "all"):
        with pytest.raises(UserError, match="a folder of its own"):
            claims(join=(Path("all") / VERDICTS,), out=folder)
    with pytest.raises(UserError, match="--join runs nothing: leave out --seeds, --iterations"):
        claims(join=(Path("all"),), out=Path("other"), seeds=3, iterations=4)
    assert read_verdicts(tmp_path / "all") == joined([WEIGHTS, LEVELS])


def test_a_damaged_file_of_verdicts_stops_no_bench(tmp_path, monkeypatch, capsys):
    """It is made of the benches, but for the commands that made them."""
    monkeypatch.setattr("ajest.claims.run.run_pieces", lambda *_: None)
    write_verdicts(tmp_path / VERDICTS, WEIGHTS)
    claims(only=("laplace",), settings=("tree",), out=tmp_path)
    again = "ajest claims --only laplace --settings tree"
    assert read_verdicts(tmp_path).commands == (*WEIGHTS.commands, again)
    (tmp_path / VERDICTS).write_text("no")
    claims(only=("laplace",), settings=("tree",), out=tmp_path)
    assert read_verdicts(tmp_path).commands == (again,)
    assert "the page will name this command alone" in " ".join(capsys.readouterr().err.split())
