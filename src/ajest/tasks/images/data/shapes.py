"""A procedural data set with known factors, so that everything runs with no data at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "cross", "diamond", "heart", "hexagon", "moon", "ring", "square", "star", "triangle")
RESOLUTION = 64
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Factors:
    """What an image was made from; all drawn from the image's number.

    Attributes:
        shape: which of CLASSES.
        x, y: centre, in [-1, 1].
        size: radius, in the same unit.
        angle: in radians.
        colour, background, edge: RGB in 0..255; the background runs from one to the other.
    """

    shape: int
    x: float
    y: float
    size: float
    angle: float
    colour: tuple[int, int, int]
    background: tuple[int, int, int]
    edge: tuple[int, int, int]


def factors(index: int, seed: int = 0) -> Factors:
    """The factors of image number `index`; seed 0 is the training part, 1 the validation part."""
    rng = np.random.default_rng([seed, index])

    def colour(low: int, high: int) -> tuple[int, int, int]:
        red, green, blue = rng.integers(low, high, 3).tolist()
        return red, green, blue

    dark = rng.random() < 0.5
    inks = (
        (colour(150, 256), colour(0, 110), colour(0, 110))
        if dark
        else (colour(0, 110), colour(150, 256), colour(150, 256))
    )
    x, y = rng.uniform(-0.45, 0.45, 2).tolist()
    size, angle = rng.uniform(0.28, 0.5), rng.uniform(0, 2 * math.pi)
    return Factors(index % len(CLASSES), x, y, size, angle, *inks)


def draw(f: Factors) -> np.ndarray:
    """The image, uint8 (3, 64, 64), antialiased."""
    side = RESOLUTION * _OVERSAMPLING
    ramp = np.linspace(0, 1, side)[:, None, None]
    ground = (1 - ramp) * np.array(f.background) + ramp * np.array(f.edge)
    image = Image.fromarray(np.broadcast_to(ground, (side, side, 3)).round().astype(np.uint8))
    mask = Image.new("L", (side, side))
    _stamp(ImageDraw.Draw(mask), f, side)
    image.paste(Image.new("RGB", image.size, f.colour), mask=mask)
    small = image.resize((RESOLUTION, RESOLUTION), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def shapes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(images uint8 (count, 3, 64, 64), labels int64); a smaller count is a prefix."""
    found = [factors(i, seed) for i in range(count)]
    return np.stack([draw(f) for f in found]), np.array([f.shape for f in found], dtype=np.int64)


def _stamp(pen: ImageDraw.ImageDraw, f: Factors, side: int) -> None:
    name = CLASSES[f.shape]

    def polygon(points: np.ndarray) -> None:
        cos, sin = math.cos(f.angle), math.sin(f.angle)
        turned = points @ np.array([[cos, sin], [-sin, cos]])
        pen.polygon(
            [((f.x + f.size * u + 1) * side / 2, (f.y + f.size * v + 1) * side / 2) for u, v in turned], fill=255
        )

    def disc(radius: float, x: float = 0.0, y: float = 0.0, fill: int = 255) -> None:
        cx, cy, r = (f.x + f.size * x + 1) * side / 2, (f.y + f.size * y + 1) * side / 2, f.size * radius * side / 2
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)

    if name == "circle":
        disc(1)
    elif name == "ring":
        disc(1)
        disc(0.55, fill=0)
    elif name == "moon":
        disc(1)
        disc(0.85, 0.5 * math.cos(f.angle), 0.5 * math.sin(f.angle), fill=0)
    elif name == "cross":
        arm = 0.34
        polygon(np.array([[-1, -arm], [1, -arm], [1, arm], [-1, arm]]))
        polygon(np.array([[-arm, -1], [arm, -1], [arm, 1], [-arm, 1]]))
    elif name == "heart":
        t = np.linspace(0, 2 * math.pi, 80)
        polygon(
            np.stack(
                [16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))], 1
            )
            / 17
        )
    elif name == "star":
        t = np.arange(10) * math.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
        polygon(np.stack([radius * np.cos(t), radius * np.sin(t)], 1))
    else:
        corners, stretch = {"triangle": (3, 1.0), "square": (4, 1.0), "hexagon": (6, 1.0), "diamond": (4, 0.55)}[name]
        t = np.arange(corners) * 2 * math.pi / corners
        polygon(np.stack([np.cos(t), stretch * np.sin(t)], 1))
