"""DINOv2 as a feature network, through transformers."""

from __future__ import annotations

import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ajest.errors import UserError
from ajest.tasks.images import dinov2, extractors
from ajest.tasks.images.extractors import Features, extractor
from feature_networks import noise, stub

pytestmark = pytest.mark.usefixtures("nothing_kept")


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
