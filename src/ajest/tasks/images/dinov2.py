"""DINOv2 ViT-L/14 as FD-DINOv2 uses it (arXiv 2306.04675): the class token after the last norm, at 224 pixels.

As published: images are resized as Pillow does it, bicubically and to whole numbers, and the network is that of
torch.hub, with its way to fit position embeddings to the size; see `fitted_positions`. Weights are those of the package
transformers, or in a folder that the user names.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ajest.errors import UserError

RESOLUTION, WIDTH, MODEL, OFFSET = 224, 1024, "facebook/dinov2-large", 0.1
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(path: str | None, device: str) -> tuple[Callable[[Tensor], Tensor], str | None]:
    """The network: uint8 images (n, 3, h, w) -> features (n, 1024); and which revision of the published weights.

    Args:
        path: a folder with config.json and model.safetensors; None takes the published weights.
        device: where to compute.

    Raises:
        UserError: the package transformers, or the weights, cannot be loaded.
    """
    try:
        from transformers import AutoModel
    except Exception as error:  # a broken torchvision beside it raises RuntimeError, not ImportError
        raise UserError(
            f"FD-DINOv2 needs the package transformers, which cannot be imported ({_line(error)}): "
            "pip install 'ajest[fid]'"
        ) from error
    where = path or MODEL
    try:
        network = AutoModel.from_pretrained(where, use_safetensors=True).to(device).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"DINOv2 cannot be loaded from {where} ({_line(error)}): name a folder with its config.json and "
            "model.safetensors by dinov2=PATH"
        ) from error
    embeddings = network.embeddings
    positions = fitted_positions(embeddings.position_embeddings.data, RESOLUTION // network.config.patch_size)
    embeddings.position_embeddings = torch.nn.Parameter(positions, requires_grad=False)
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (_MEAN, _STD))

    def run(images: Tensor) -> Tensor:
        x = _resized(images, RESOLUTION).to(device) / 255
        return network(pixel_values=(x - mean) / std).last_hidden_state[:, 0]

    return run, getattr(network.config, "_commit_hash", None)


def _resized(images: Tensor, side: int) -> Tensor:
    """uint8 images (n, 3, h, w) at another size, bicubically by Pillow: of two passes in whole numbers."""
    opened = (Image.fromarray(np.ascontiguousarray(x)) for x in images.permute(0, 2, 3, 1).cpu().numpy())
    resized = [np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in opened]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)


def fitted_positions(embeddings: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + m^2, d), class token first, for a grid of side^2 positions: (1, 1 + side^2, d).

    The rule of the published network (torch.hub's `dinov2_vitl14`): bicubic without antialiasing, by the factor
    (side + 0.1) / m, so that position i lies at (i + 1/2) m / (side + 0.1) - 1/2 of the old grid. transformers, where
    these embeddings come from, takes the factor side / m instead.
    """
    m = math.isqrt(embeddings.shape[1] - 1)
    if m == side:
        return embeddings
    grid = embeddings[:, 1:].float().reshape(1, m, m, -1).permute(0, 3, 1, 2)
    factor = (side + OFFSET) / m
    grid = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
    return torch.cat([embeddings[:, :1], grid.flatten(2).mT.to(embeddings.dtype)], 1)


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
