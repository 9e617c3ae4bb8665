"""The EDM2 network once more, in plain NumPy and float64, and the test vectors that it gives.

It shares no line with the package: it is written from the equations of arXiv 2312.02696 (configuration G), for being
read and not for speed. Weights are drawn by name, so that a file of vectors needs none.

    python scripts/reference_vectors.py                              # writes tests/reference/edm2.npz
    python scripts/reference_vectors.py --against NETWORK.safetensors  # how far it is from another's network
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

OUT = Path(__file__).parents[1] / "tests" / "reference" / "edm2.npz"
SIGMA_DATA, GAIN, BATCH = 0.5, 0.5, 3

Weights = Callable[[str, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Config:
    """A network of configuration G: its images, labels, channels, levels and attention."""

    resolution: int
    labels: int
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...] = (16, 8)


CASES = {
    "heads": Config(16, 5, 64, (1, 2), 1),  # two heads of attention at 8 x 8, one at 16 x 16
    "levels": Config(16, 0, 8, (1, 2, 3), 2, (8,)),  # three levels, no labels
}


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight by its name, as float32: scalar gains 0.5, phases 2 pi U(0, 1), frequencies 2 pi N(0, 1), others
    N(0, 1), from NumPy's RandomState (whose stream never changes) seeded with the name's CRC-32."""
    numbers = np.random.RandomState(zlib.crc32(name.encode()))
    if not shape:
        return np.array(GAIN, np.float32)
    if name.endswith("phases"):
        return (2 * np.pi * numbers.uniform(size=shape)).astype(np.float32)
    scale = 2 * np.pi if name.endswith("freqs") else 1.0
    return (scale * numbers.standard_normal(shape)).astype(np.float32)


def normalized(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Equation 47."""
    norm = np.sqrt(np.square(x).sum(axes, keepdims=True))
    return x / (1e-4 + norm * np.sqrt(norm.size / x.size))


def silu(x: np.ndarray) -> np.ndarray:
    """Magnitude-preserving SiLU."""
    return x / (1 + np.exp(-x)) / 0.596


def summed(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Equation 88: magnitude-preserving sum."""
    return ((1 - t) * a + t * b) / np.sqrt((1 - t) ** 2 + t**2)


def joined(a: np.ndarray, b: np.ndarray, t: float = 0.5) -> np.ndarray:
    """Equation 103: magnitude-preserving concatenation."""
    na, nb = a.shape[1], b.shape[1]
    c = np.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    return np.concatenate([c * (1 - t) / np.sqrt(na) * a, c * t / np.sqrt(nb) * b], 1)


class Network:
    """The denoiser of a config, with weights from a function of name and shape."""

    def __init__(self, config: Config, weights: Weights) -> None:
        self.config, self.weights = config, weights

    def tensor(self, name: str, *shape: int) -> np.ndarray:
        found = np.asarray(self.weights(name, shape), dtype=np.float64)
        assert found.shape == shape, (name, found.shape, shape)
        return found

    def linear(self, x: np.ndarray, name: str, fan_out: int) -> np.ndarray:
        weight = normalized(self.tensor(f"{name}.weight", fan_out, x.shape[1]), (1,))
        return x @ weight.T / np.sqrt(x.shape[1])

    def convolved(self, x: np.ndarray, name: str, fan_out: int, kernel: int) -> np.ndarray:
        weight = normalized(self.tensor(f"{name}.weight", fan_out, x.shape[1], kernel, kernel), (1, 2, 3))
        edge = kernel // 2
        padded = np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        windows = sliding_window_view(padded, (kernel, kernel), (2, 3))
        summed_up = np.tensordot(windows, weight, ((1, 4, 5), (1, 2, 3)))  # (n, h, w, fan_out)
        return summed_up.transpose(0, 3, 1, 2) / np.sqrt(x.shape[1] * kernel**2)

    def fourier(self, c: np.ndarray, name: str, channels: int) -> np.ndarray:
        """Equation 75."""
        return np.sqrt(2) * np.cos(
            np.outer(c, self.tensor(f"{name}.freqs", channels)) + self.tensor(f"{name}.phases", channels)
        )

    def attended(self, x: np.ndarray, name: str) -> np.ndarray:
        """Equation 36: cosine attention; channels of the product are (head, channel of it, q | k | v)."""
        n, channels, h, w = x.shape
        heads = max(1, channels // 64)
        parts = self.convolved(x, f"{name}.attn_qkv", 3 * channels, 1).reshape(n, heads, channels // heads, 3, h * w)
        q, k, v = np.moveaxis(normalized(parts, (2,)), 3, 0)
        logits = np.einsum("nhcq,nhck->nhqk", q, k) / np.sqrt(channels // heads)
        odds = np.exp(logits - logits.max(3, keepdims=True))
        answer = np.einsum("nhqk,nhck->nhcq", odds / odds.sum(3, keepdims=True), v)
        return self.convolved(answer.reshape(x.shape), f"{name}.attn_proj", channels, 1)

    def block(self, x: np.ndarray, embedding: np.ndarray, name: str, width: int, attention: bool = False) -> np.ndarray:
        """An encoder or decoder block of figure 21, which its name tells."""
        encoder = ".enc." in name
        if name.endswith("_down"):
            n, c, h, w = x.shape
            x = x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))
        elif name.endswith("_up"):
            x = x.repeat(2, 2).repeat(2, 3)
        if encoder:
            if x.shape[1] != width:
                x = self.convolved(x, f"{name}.conv_skip", width, 1)
            x = normalized(x, (1,))
        y = self.convolved(silu(x), f"{name}.conv_res0", width, 3)
        scale = 1 + self.tensor(f"{name}.emb_gain") * self.linear(embedding, f"{name}.emb_linear", width)
        y = self.convolved(silu(y * scale[:, :, None, None]), f"{name}.conv_res1", width, 3)
        if not encoder and x.shape[1] != width:
            x = self.convolved(x, f"{name}.conv_skip", width, 1)
        x = summed(x, y, 0.3)
        if attention:
            x = summed(x, self.attended(x, name), 0.3)
        return x.clip(-256, 256)

    def raw(self, x: np.ndarray, c_noise: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The raw network F of figure 21."""
        config, at = self.config, "unet"
        widths = [config.channels * m for m in config.multipliers]
        embedding = self.linear(self.fourier(c_noise, f"{at}.emb_fourier", widths[0]), f"{at}.emb_noise", max(widths))
        if config.labels:
            one_hot = np.eye(config.labels)[labels] * np.sqrt(config.labels)
            embedding = summed(embedding, self.linear(one_hot, f"{at}.emb_label", max(widths)), 0.5)
        embedding = silu(embedding)
        x, skips = np.concatenate([x, np.ones_like(x[:, :1])], 1), []
        for level, width in enumerate(widths):
            side = config.resolution >> level
            stem, attends = f"{at}.enc.{side}x{side}", side in config.attention
            if level:
                x = self.block(x, embedding, f"{stem}_down", x.shape[1])
            else:
                x = self.convolved(x, f"{stem}_conv", width, 3)
            skips.append(x)
            for i in range(config.blocks):
                x = self.block(x, embedding, f"{stem}_block{i}", width, attends)
                skips.append(x)
        for level in reversed(range(len(widths))):
            side, width = config.resolution >> level, widths[level]
            stem, attends = f"{at}.dec.{side}x{side}", side in config.attention
            if level == len(widths) - 1:
                x = self.block(x, embedding, f"{stem}_in0", x.shape[1], True)
                x = self.block(x, embedding, f"{stem}_in1", x.shape[1])
            else:
                x = self.block(x, embedding, f"{stem}_up", x.shape[1])
            for i in range(config.blocks + 1):
                x = self.block(joined(x, skips.pop()), embedding, f"{stem}_block{i}", width, attends)
        return self.tensor(f"{at}.out_gain") * self.convolved(x, f"{at}.out_conv", 3, 3)

    def denoised(self, x: np.ndarray, sigma: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """D of section 2, with the scales of EDM (arXiv 2206.00364, table 1)."""
        level = sigma[:, None, None, None]
        total = level**2 + SIGMA_DATA**2
        answer = self.raw(x / np.sqrt(total), np.log(sigma) / 4, labels)
        return SIGMA_DATA**2 / total * x + level * SIGMA_DATA / np.sqrt(total) * answer

    def uncertainty(self, sigma: np.ndarray) -> np.ndarray:
        """u(sigma) of equation 21, shape (n,)."""
        return self.linear(self.fourier(np.log(sigma) / 4, "logvar_fourier", 128), "logvar_linear", 1)[:, 0]


def vectors() -> dict[str, Any]:
    """Config, inputs and answers of each case; inputs are exact in float32."""
    found: dict[str, np.ndarray] = {}
    for name, config in CASES.items():
        numbers = np.random.RandomState(zlib.crc32(name.encode()))
        sigma = np.array([0.05, 0.5, 5.0], dtype=np.float32)
        noise = numbers.standard_normal((BATCH, 3, config.resolution, config.resolution))
        x = (noise * np.sqrt(sigma**2 + SIGMA_DATA**2)[:, None, None, None]).astype(np.float32)
        labels = np.arange(BATCH) % max(config.labels, 1)
        network = Network(config, drawn)
        wide = x.astype(np.float64), sigma.astype(np.float64)
        found |= {
            f"{name}.config": np.array(json.dumps(vars(config))),
            f"{name}.x": x,
            f"{name}.sigma": sigma,
            f"{name}.labels": labels,
            f"{name}.denoised": network.denoised(*wide, labels),
            f"{name}.uncertainty": network.uncertainty(wide[1]),
        }
    return found


def against(path: Path) -> dict[str, float]:
    """The largest differences from a stored network's own answers."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        facts = json.loads(file.metadata()["config"])
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    config = Config(
        facts["img_resolution"], facts["label_dim"], facts["model_channels"], (*facts["channel_mult"],),
        facts["num_blocks"],
    )  # fmt: skip
    network = Network(config, lambda name, shape: stored[f"weights.{name}"])
    x, sigma = stored["in.x"].astype(np.float64), stored["in.sigma"].astype(np.float64)
    answer = network.denoised(x, sigma, stored["in.labels"].argmax(1))
    return {
        "denoised": float(np.abs(answer - stored["out.denoised"]).max()),
        "uncertainty": float(np.abs(network.uncertainty(sigma) - stored["out.logvar"].ravel()).max()),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--against", type=Path, help="a stored network with its inputs and answers")
    asked = options.parse_args()
    if asked.against:
        print(json.dumps(against(asked.against), indent=1))
    else:
        np.savez_compressed(OUT, **vectors())
        print(f"{OUT.name}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
