"""Pruning before training: clusters on made-up points, losses by level, and keep-lists from the command line."""

import csv

import pytest
import torch

from ajest.errors import UserError
from ajest.selection.catalogue import ARMS
from ajest.selection.keep_list import read_keep_list
from ajest.training.pruning import by_clusters, clean_features, kmeans, relative_losses
from ajest.training.run import execute
from ajest.training.run_folder import RunConfig
from ajest.training.schedule import Schedule
from conftest import small_images, small_recipe, small_task


def test_kmeans_finds_groups_that_lie_apart():
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=torch.float64)
    group = torch.arange(90) % 3
    x = places[group] + torch.randn(90, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
    centres, nearest = kmeans(x, 3, torch.Generator().manual_seed(1))
    assert len({(int(a), int(b)) for a, b in zip(group, nearest, strict=True)}) == 3
    for k in range(3):
        torch.testing.assert_close(centres[nearest[k]], x[group == k].mean(0))
    same, _ = kmeans(torch.ones(5, 2, dtype=torch.float64), 3, torch.Generator().manual_seed(1))
    assert torch.equal(same, torch.ones(3, 2, dtype=torch.float64))


def test_a_loss_counts_in_units_of_the_mean_at_its_level():
    """Losses are level times hardness: what an example is measured at says nothing."""
    numbers = torch.Generator().manual_seed(0)
    ids, hard = torch.arange(4000) % 40, torch.linspace(0.5, 1.5, 40, dtype=torch.float64)
    sigma = torch.randn(4000, generator=numbers).mul(2).exp()
    found = relative_losses(ids, sigma, hard[ids] * (sigma.log() / 2).round().exp(), 40)
    assert torch.corrcoef(torch.stack([found, hard]))[0, 1] > 0.95
    assert found.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("prefer", ["hard", "easy"])
def test_a_share_of_each_cluster_is_kept_by_the_distance_to_its_centre(prefer):
    task = small_images()
    found = by_clusters(task, 0.5, prefer, clusters=4)
    assert clean_features(task).shape == (256, 192)
    for one in range(4):
        mine = (found.cluster == one).nonzero()[:, 0]
        kept = torch.isin(mine, found.rows)
        assert kept.sum() == max(1, round(0.5 * len(mine)))
        distance = found.score[mine]
        if prefer == "hard":
            assert distance[kept].min() >= distance[~kept].max()
        else:
            assert distance[kept].max() <= distance[~kept].min()


def test_keep_lists_of_a_run_from_the_command_line(command, tmp_path):
    task = small_images()
    execute(
        tmp_path / "run", RunConfig(task, "learner", small_recipe(super_batch=16), ARMS["baseline"], 0, 1), Schedule()
    )
    for by in ("clusters", "difficulty"):
        done = command("data", "prune", "run", f"{by}.csv", "--by", by, "--keep", "25%", "--clusters", "2")
        assert done.code == 0, done.err
        rows = list(csv.DictReader((tmp_path / f"{by}.csv").read_text().splitlines()))
        assert done.out.split(": ")[1].strip() == f"{len(rows)} of 256 examples"
        assert abs(len(rows) - 64) <= 1
        assert len(read_keep_list(tmp_path / f"{by}.csv").rows(task.example_names())) == len(rows)
    done = command("data", "prune", "run", "x.csv", "--by", "clusters", "--keep", "100%")
    assert (done.code, "keep less than all" in done.err) == (2, True)


def test_what_cannot_be_pruned_is_refused():
    with pytest.raises(UserError, match="has no data set that could be pruned"):
        by_clusters(small_task(), 0.5, "hard", clusters=2)
    with pytest.raises(UserError, match="300 clusters are more than there are examples, 256"):
        by_clusters(small_images(), 0.5, "hard", clusters=300)
