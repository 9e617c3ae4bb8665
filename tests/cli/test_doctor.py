"""Help at the terminal: what to begin with, what the machine has, what to send with a report of a fault."""

import json
import re
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import torch
from test_cli import ajest, fails

from ajest.bench.report.bundle import TAIL, write_bundle
from ajest.bench.run import calibration
from ajest.cli import doctor
from ajest.cli.main import VERBS
from ajest.errors import UserError
from ajest.runtime import cards, environment, threads
from ajest.runtime.cards import Card


def test_ajest_alone_shows_three_commands_to_begin_with():
    done = ajest()
    assert done.returncode == 0
    assert done.stderr == ""
    shown = re.findall(r"^  ajest (\w+)", done.stdout, re.MULTILINE)
    assert len(shown) == 3
    assert set(shown) <= set(VERBS)


def test_an_unknown_command_is_met_with_the_nearest():
    fails("bnech", "tree", says="unknown command 'bnech': did you mean 'bench'")
    fails("data", "descrbe", says="unknown command 'descrbe': did you mean 'describe'")
    fails("--verbose", says="unknown command '--verbose'")


def test_a_folder_that_is_not_there_is_met_with_the_nearest_of_runs(tmp_path):
    fails("report", "tree-quick", says="tree-quick is not a bench", cwd=tmp_path)
    for name, config in (("tree-quick", "bench.json"), ("pets", "config.json"), ("none", "other.json")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / config).write_text("{}")
    for words in (("report", "tree-quick"), ("status", "tree-quick"), ("plan", "tree-quick")):
        fails(*words, says="did you mean 'runs/tree-quick'. known are runs/pets, runs/tree-quick$", cwd=tmp_path)


def test_doctor_says_what_there_is_and_times_a_step():
    done = ajest("doctor", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert f"torch {torch.__version__}" in done.stdout
    assert re.search(r"^step +[\d.e+]+ ms \(the baseline of `ajest bench tree`, cpu\)", done.stdout, re.MULTILINE)
    for extra in environment.missing():
        assert f"extra {extra}" in done.stdout


def test_doctor_times_one_thread_beside_all_and_says_if_more_are_slower(monkeypatch):
    monkeypatch.setattr(threads, "configure_threads", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    for seconds, said in (({1: 0.01, 8: 0.004}, False), ({1: 0.01, 8: 0.2}, True)):
        monkeypatch.setattr(calibration, "step_seconds", lambda root, config, counts, device, seconds=seconds: seconds)
        found = doctor._step("cpu")
        assert found.startswith(f"10 ms on 1 of 8 threads, {1000 * seconds[8]:g} ms on 8 of 8 threads")
        assert ("slower" in found) == said


def test_extras_are_missing_until_all_their_packages_are_there(monkeypatch):
    asked = [
        "torch>=2.11",
        'numpy>=1; extra == "fid"',
        "no-such-package-1 >= 2 ; extra == 'fid'",
        'pytest; extra == "test"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    assert environment.requirements() == {"": ("torch",), "fid": ("numpy", "no-such-package-1"), "test": ("pytest",)}
    assert environment.missing() == {"fid": ("no-such-package-1",)}
    assert environment.versions()["torch"] == torch.__version__
    assert "no-such-package-1" not in environment.versions()


def test_without_metadata_the_rest_is_still_told(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert environment.missing() == {}
    assert set(environment.versions()) == {"ajest", "python", "torch"}


def test_cards_are_told_or_why_they_cannot_be_looked_at(monkeypatch):
    monkeypatch.setattr(cards, "visible", lambda: (Card("0", "a card", True, 80, 60),))
    assert environment.facts()["cards"] == [{"name": "a card", "total": 80, "free": 60}]

    def refuse():
        raise UserError("the driver is too old")

    monkeypatch.setattr(cards, "visible", refuse)
    assert environment.facts()["cards"] == "the driver is too old"


def test_a_bundle_has_configs_and_the_ends_of_logs_and_nothing_else(tmp_path, monkeypatch):
    home = tmp_path / "home" / "somebody"
    monkeypatch.setattr(Path, "home", lambda: home)
    bench = tmp_path / "bench"
    run = bench / "arms" / "random" / "seed-0"
    (run / "snapshots").mkdir(parents=True)
    (bench / "bench.json").write_text(json.dumps({"data": [f"{home}/faces.zip"]}))
    (run / "config.json").write_text('{"damaged')
    (run / "ledger.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in range(50)))
    for name in ("metrics.jsonl", "snapshots/snapshot-0000001.json", "snapshots/snapshot-0000001.safetensors", "x.npz"):
        (run / name).write_text("secret")
    names = write_bundle(bench, tmp_path / "fault.zip")
    with zipfile.ZipFile(tmp_path / "fault.zip") as archive:
        content = {name: archive.read(name).decode() for name in archive.namelist()}
    here = "arms/random/seed-0"
    assert sorted(content) == names == [f"{here}/config.json", f"{here}/ledger.jsonl", "bench.json", "environment.json"]
    assert json.loads(content["bench.json"]) == {"data": ["~/faces.zip"]}
    assert content[f"{here}/config.json"] == '{"damaged'
    assert [json.loads(line)["step"] for line in content[f"{here}/ledger.jsonl"].splitlines()] == [
        *range(50 - TAIL, 50)
    ]
    assert json.loads(content["environment.json"])["versions"]["torch"] == torch.__version__
    assert "secret" not in "".join(content.values())


def test_a_bundle_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no bench, study or run"):
        write_bundle(tmp_path, tmp_path / "fault.zip")
    fails("report", ".", "--bundle", "fault.tar", says="the archive is a .zip", cwd=tmp_path)
    assert not list(tmp_path.iterdir())
