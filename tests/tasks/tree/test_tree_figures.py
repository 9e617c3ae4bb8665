"""Figures of the tree: what they hold, and that they are cheap."""

import numpy as np
import pytest
import torch

from ajest.bench.report.figures import encoded
from ajest.tasks.base import RunTensors
from ajest.tasks.tree import figures
from ajest.tasks.tree.distribution import TreeDistribution
from ajest.tasks.tree.metrics import hits

GENERATOR = torch.Generator().manual_seed(0)
SAMPLES = 0.5 * torch.randn(300, 2, generator=GENERATOR)


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


@pytest.mark.parametrize("label", ["A", "B"])
def test_windows_share_one_axes_and_say_how_many_are_on_the_tree(label):
    x = SAMPLES.numpy()
    figure = figures.samples(label, {"one": x, "two": -x})
    assert len(figure.axes) == 1
    shares = [hits(TreeDistribution(label), torch.from_numpy(part)).float().mean() for part in (x, -x)]
    assert texts(figure) == [
        f"{name}\n{share:.1%} on the tree" for name, share in zip(("one", "two"), shares, strict=True)
    ]
    assert encoded(figure).data


def test_points_beyond_a_window_are_left_out_and_none_within():
    x = SAMPLES.numpy()
    figure = figures.samples("A", {"one": x})
    (left, right, bottom, top), (zoom_left, zoom_right, zoom_bottom, zoom_top) = figures.EXTENT, figures.ZOOM
    inside = (x[:, 0] > left) & (x[:, 0] < right) & (x[:, 1] > bottom) & (x[:, 1] < top)
    zoomed = (x[:, 0] > zoom_left) & (x[:, 0] < zoom_right) & (x[:, 1] > zoom_bottom) & (x[:, 1] < zoom_top)
    drawn = [len(line.get_xdata()) for line in figure.axes[0].lines]
    assert drawn[0] + drawn[1] == inside.sum()
    assert drawn[2] + drawn[3] == zoomed.sum()


def test_the_same_samples_are_judged_once_for_all_figures(monkeypatch):
    figures._hits.cache_clear()
    judged = []
    monkeypatch.setattr(figures, "hits", lambda tree, x: judged.append(len(x)) or hits(tree, x))
    paths = torch.randn(5, 4, 2, generator=GENERATOR)
    last = {w: {"samples": w * SAMPLES, "trajectories": paths} for w in (1.0, 3.0)}
    moment = {"x": SAMPLES, "sigma": torch.rand(300) + 0.1, "kept": torch.arange(300) < 60}
    run = RunTensors(3.0, last, {2: moment, 16: moment}, {10: last[1.0], 20: last[3.0]})
    found = figures.of_run("A", run)
    assert [len(figure.axes) for _, figure in found] == [1, 1, 1, 1, 4]
    figures.side_by_side("A", 3.0, {"baseline": last})
    assert len(judged) == 3  # unguided, guided, and the tree itself
    for _, figure in found:
        assert encoded(figure).data


def test_a_mandala_of_no_hits_and_one_of_no_misses_are_drawn():
    far = np.full((50, 2), 0.9, dtype=np.float32)
    truth = figures._truth("A", 50)
    figure = figures.mandalas("A", {"far": far, "the truth": truth})
    assert texts(figure)[0] == "far\nmandala 0.000"
    assert encoded(figure).data
