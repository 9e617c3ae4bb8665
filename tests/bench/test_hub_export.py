"""A network as the hub has them: weights, config and a card with the verdict."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from test_bench_parquet import found

from ajest.bench.plan.config import BenchConfig, run_folder
from ajest.bench.report.hub import Exported, card, export, without_places
from ajest.errors import UserError
from ajest.selection.catalogue import ARMS
from ajest.storage import jsonl
from ajest.storage.config_file import write_config
from ajest.training.networks import load_exported, load_network
from ajest.training.run import execute
from ajest.training.run_folder import read_config
from ajest.training.schedule import Schedule
from conftest import small_images, small_recipe

ARM = replace(ARMS["random"], keep=0.5)


@pytest.fixture
def run(tmp_path):
    """A run of a bench that has begun."""
    task = replace(small_images(), data=("/home/me/secret/pets.zip",))
    config = BenchConfig(small_images(), replace(small_recipe(), super_batch=16), (ARMS["baseline"], ARM), (0,), 32, 1)
    write_config(tmp_path / "bench" / "bench.json", config)
    folder = run_folder(tmp_path / "bench", "random", 0)
    execute(folder, replace(config.run(ARM, 0), iterations=2), Schedule())
    write_config(folder / "config.json", replace(config.run(ARM, 0), iterations=2, task=task))
    line = {"step": 2, "width": config.recipe.ema_widths[0], "weight": 1.0, "n": 512, "metrics": {"loss": 0.25}}
    jsonl.append(folder / "metrics.jsonl", line)
    return folder


def front(text):
    """The facts before a card, by name."""
    _, facts, _ = text.split("---\n", 2)
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in facts.splitlines())}


def test_what_is_exported_is_read_back_bit_for_bit_and_names_no_place(run, tmp_path):
    said = export(run, tmp_path / "out")
    assert (said.step, {p.name for p in (tmp_path / "out").iterdir()}) == (
        2,
        {"README.md", "config.json", "model.safetensors"},
    )
    network, task = load_exported(tmp_path / "out")
    mine, _ = load_network(run)
    for name, weights in mine.state_dict().items():
        assert torch.equal(network.state_dict()[name], weights), name
    assert task == small_images()
    assert task.data == ("pets.zip",)
    for name in ("README.md", "config.json"):
        assert "secret" not in (tmp_path / "out" / name).read_text()


def test_a_card_tells_the_hub_what_it_reads_and_people_what_the_bench_found(run, tmp_path):
    export(run, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    facts = front(text)
    assert (facts["library_name"], facts["pipeline_tag"]) == ("ajest", "unconditional-image-generation")
    (result,) = facts["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "loss", "value": 0.25}]
    assert "## The bench that it is part of" in text

    exported = Exported(run, replace(read_config(run), arm=ARM), 2, 0.1)
    judged = card(exported, found())
    assert found().answer in judged
    assert all(sentence in judged for sentence in found().verdict)
    assert "| arm |" in judged
    alone = card(exported, None)
    assert "The bench" not in alone


def test_a_data_set_of_the_hub_is_named(run):
    config = read_config(run)
    task = replace(config.task, data=("hf:user/pets:train", "/home/me/more.zip"))
    facts = front(card(Exported(run, replace(config, task=task), 2, config.recipe.ema_widths[0]), None))
    assert facts["datasets"] == ["user/pets"]
    assert without_places(task).data == ("hf:user/pets:train", "more.zip")


def test_what_cannot_be_exported_or_read_is_refused(run, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("")
    with pytest.raises(UserError, match="full holds something already: name another folder to export to"):
        export(run, tmp_path / "full")
    with pytest.raises(UserError, match="has no snapshot of step 9"):
        export(run, tmp_path / "out", step=9)
    with pytest.raises(UserError, match=r"holds no exported network: it has no model.safetensors"):
        load_exported(run)
    export(run, tmp_path / "out")
    save_file({"other": torch.zeros(2)}, tmp_path / "out" / "model.safetensors")
    with pytest.raises(UserError, match=r"model.safetensors is not the network of its config.json"):
        load_exported(tmp_path / "out")


def test_from_the_command_line(command, run):
    done = command("export", str(run), "out")
    assert done.code == 0, done.err
    assert done.out.startswith("out: step 2, EMA width ")
