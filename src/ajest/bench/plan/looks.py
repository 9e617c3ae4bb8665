"""When a bench that adds seeds looks at what it has, planned before it begins (docs/method.md#looks)."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ajest.errors import check

#: Fewer seeds are a first look at nothing: none of them makes a difference certain (docs/method.md#statistics).
LEAST_SEEDS = 5
#: About so many times as many seeds at each look as at the one before: more looks cost sharpness, fewer cost seeds.
GROWTH = 1.6


def planned_looks(first: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds at which a bench looks, in even steps of their logarithm.

    Args:
        first: at the first look; it is `LEAST_SEEDS` at the least.
        most: at the last look.

    Raises:
        UserError: there is none to add.
    """
    first = max(first, LEAST_SEEDS)
    check(most > first, f"--max-seeds {most}: a bench begins with {first} seeds, so name more than these")
    steps = max(1, round(math.log(most / first, GROWTH)))
    return tuple(dict.fromkeys(round(first * (most / first) ** (k / steps)) for k in range(steps + 1)))


def more_seeds(seeds: Sequence[int], count: int, taken: Collection[int] = ()) -> tuple[int, ...]:
    """The first so many of these seeds, and of the whole numbers after the largest that are not taken."""
    found, following = list(seeds[:count]), max(seeds)
    while len(found) < count:
        following += 1
        if following not in taken:
            found.append(following)
    return tuple(found)
