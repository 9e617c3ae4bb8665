"""What was done to the images of a data set, said once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .decoding import Decoded
from .levels import contradiction


@dataclass
class Changes:
    """Counts over the images added so far.

    Attributes:
        counts: how many images underwent each change.
        largest: the evidence of `contradiction`.
    """

    counts: Counter[str] = field(default_factory=Counter)
    largest: dict[tuple[str, int], tuple[float, str]] = field(default_factory=dict)

    def add(self, name: str, image: Decoded) -> None:
        self.counts.update(image.changes)
        levels = image.levels
        if levels is not None and not levels.told:
            key = levels.kind, levels.white
            if levels.high > self.largest.get(key, (-1.0, ""))[0]:
                self.largest[key] = levels.high, name

    def contradiction(self) -> str | None:
        """Why the images cannot have been what they were taken for, or None."""
        return contradiction(self.largest)


def phrase(counts: Mapping[str, int]) -> str:
    """All changes in one line, the commonest first; "" where there are none."""
    if not counts:
        return ""
    return "images were changed: " + "; ".join(
        f"{n:,} {what}" for what, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
