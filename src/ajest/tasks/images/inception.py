"""Inception-V3 as the FID uses it (arXiv 1512.00567; TensorFlow's weights of 2015), for 2048 features.

Weights come from a file that the user names, or through torch-fidelity. The file is TorchScript (the widespread FID
archive: uint8 images in, `return_features=True`): nothing is unpickled from it, but it can hold any computation and
has to be trusted like a program. Or it is safetensors with the key names of torchvision and pytorch-fid
(`Mixed_5b.branch1x1.conv.weight`, `.bn.running_mean`). The network differs from torchvision's in its resizing, its
average pools (padding does not count) and one maximum pool, so torchvision's own weights give no FID: they are refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from ajest.errors import UserError

RESOLUTION, WIDTH = 299, 2048
_EPSILON = 1e-3


class Conv(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, fan_in: int, fan_out: int, kernel: int | tuple[int, int], stride: int = 1, padding: Any = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(fan_in, fan_out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(fan_out, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


def _mean_pool(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _max_pool(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 3, 1, 1)


class MixedA(nn.Module):
    """35 x 35: 1 x 1, 5 x 5 and two 3 x 3."""

    def __init__(self, fan_in: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(fan_in, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Conv(fan_in, 48, 1), Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(fan_in, 64, 1)
        self.branch3x3dbl_2, self.branch3x3dbl_3 = Conv(64, 96, 3, padding=1), Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(fan_in, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        parts = [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), wide, self.branch_pool(_mean_pool(x))]
        return torch.cat(parts, 1)


class MixedB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, fan_in: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(fan_in, 384, 3, 2)
        self.branch3x3dbl_1 = Conv(fan_in, 64, 1)
        self.branch3x3dbl_2, self.branch3x3dbl_3 = Conv(64, 96, 3, padding=1), Conv(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), wide, functional.max_pool2d(x, 3, 2)], 1)


class MixedC(nn.Module):
    """17 x 17: 7 x 7 as a row and a column."""

    def __init__(self, fan_in: int, c: int) -> None:
        super().__init__()
        row: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
        column: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Conv(fan_in, 192, 1)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = (
            Conv(fan_in, c, 1),
            Conv(c, c, **row),
            Conv(c, 192, **column),
        )
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(fan_in, c, 1), Conv(c, c, **column)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(c, c, **row), Conv(c, c, **column)
        self.branch7x7dbl_5 = Conv(c, 192, **row)
        self.branch_pool = Conv(fan_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(_mean_pool(x))], 1)


class MixedD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, fan_in: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(fan_in, 192, 1), Conv(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(fan_in, 192, 1), Conv(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, (7, 1), padding=(3, 0)), Conv(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), wide, functional.max_pool2d(x, 3, 2)], 1)


class MixedE(nn.Module):
    """8 x 8: branches that fork into a row and a column."""

    def __init__(self, fan_in: int, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool
        row: dict[str, Any] = {"kernel": (1, 3), "padding": (0, 1)}
        column: dict[str, Any] = {"kernel": (3, 1), "padding": (1, 0)}
        self.branch1x1 = Conv(fan_in, 320, 1)
        self.branch3x3_1 = Conv(fan_in, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Conv(384, 384, **row), Conv(384, 384, **column)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(fan_in, 448, 1), Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, **row), Conv(384, 384, **column)
        self.branch_pool = Conv(fan_in, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once, twice = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        parts += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *parts, self.branch_pool(self.pool(x))], 1)


class InceptionV3(nn.Module):
    """Images (n, 3, h, w), uint8, -> features (n, 2048) after the last pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, 2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Conv(32, 64, 3, padding=1), Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = MixedA(192, 32), MixedA(256, 64), MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b, self.Mixed_6c = MixedC(768, 128), MixedC(768, 160)
        self.Mixed_6d, self.Mixed_6e = MixedC(768, 160), MixedC(768, 192)
        self.Mixed_7a = MixedD(768)
        self.Mixed_7b, self.Mixed_7c = MixedE(1280, _mean_pool), MixedE(2048, _max_pool)

    def forward(self, images: Tensor) -> Tensor:
        x = (_resized(images.float()) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))


def _resized(x: Tensor) -> Tensor:
    """Bilinear to 299 pixels as TensorFlow 1 did it: output pixel i lies at i * side / 299, without antialiasing."""
    n, _, h, w = x.shape
    if (h, w) == (RESOLUTION, RESOLUTION):
        return x
    ys, xs = (torch.arange(RESOLUTION, device=x.device) * (side / RESOLUTION) for side in (h, w))
    grid_y, grid_x = torch.meshgrid((2 * ys + 1) / h - 1, (2 * xs + 1) / w - 1, indexing="ij")
    grid = torch.stack([grid_x, grid_y], -1).expand(n, -1, -1, -1)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def from_state(state: Mapping[str, Tensor]) -> InceptionV3:
    """The network from weights named as torchvision names them; a classifier's head is ignored.

    Raises:
        UserError: weights are missing, of the wrong shape, or torchvision's, trained on ImageNet-1k.
    """
    head = state.get("fc.weight")
    if "AuxLogits.fc.weight" in state or (head is not None and len(head) == 1000):
        raise UserError(
            "these weights of Inception-V3 are torchvision's, which give no FID: name a file with the FID's own "
            "(TensorFlow's of 2015, with 1008 classes or no head)"
        )
    network = InceptionV3()
    wanted = {k for k in network.state_dict() if not k.endswith("num_batches_tracked")}
    missing = sorted(wanted - set(state))
    if missing:
        raise UserError(f"the weights of Inception-V3 lack {missing[0]} ({len(missing)} such)")
    try:
        network.load_state_dict({k: state[k] for k in wanted}, strict=False)
    except RuntimeError as error:
        raise UserError(f"these are not the weights of Inception-V3: {str(error).splitlines()[-1].strip()}") from error
    return network.eval().requires_grad_(False)


def load(path: str | None, device: str) -> Callable[[Tensor], Tensor]:
    """The function from images (n, 3, h, w), uint8, to features (n, 2048).

    Args:
        path: a file as in the head of this module; None for torch-fidelity, which downloads its weights once.
        device: where to compute.

    Raises:
        UserError: no such weights, or no torch-fidelity that can be imported.
    """
    if path is None:
        network = _fidelity(device)
        return lambda images: network(images)[0]
    try:
        if path.endswith(".safetensors"):
            return from_state(safetensors.torch.load_file(path)).to(device)
        with warnings.catch_warnings():
            # torch would have exports in place of TorchScript; the archive that everyone has is TorchScript.
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            script = torch.jit.load(path, map_location=device).eval()
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}): name a whole file") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is neither safetensors nor TorchScript of Inception-V3: name such a file") from error
    return lambda images: script(images, return_features=True)


def _fidelity(device: str) -> nn.Module:
    mend = "pip install 'ajest[fid]' with a torchvision that fits your torch, or name weights by inception=PATH"
    try:
        # torch.load in there reads with weights_only, torch's default.
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception as error:  # torchvision beside another torch raises RuntimeError, not ImportError
        raise UserError(f"FID needs torch-fidelity, which cannot be imported ({_line(error)}): {mend}") from error
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).to(device).eval()
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors
        raise UserError(f"torch-fidelity cannot load Inception-V3 ({_line(error)}): {mend}") from error


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
