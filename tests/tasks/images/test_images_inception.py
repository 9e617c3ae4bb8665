"""Inception as a feature network: from torchscript, from safetensors, through torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from ajest.errors import UserError
from ajest.tasks.images import extractors, inception
from ajest.tasks.images.extractors import extract, extractor
from feature_networks import noise, stub

pytestmark = pytest.mark.usefixtures("nothing_kept")


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


def test_other_weights_under_the_same_path_are_another_network(tmp_path):
    path = tmp_path / "inception.safetensors"
    identities = set()
    for seed in (0, 1):
        safetensors.torch.save_file(inception_state(seed), path)
        identities.add(extractor(f"inception={path}").identity)
    assert len(identities) == 2
