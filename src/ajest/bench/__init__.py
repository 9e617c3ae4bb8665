"""The bench: arms x seeds as independent, resumable runs, compared at equal budgets (docs/method.md#protocol).

`Bench` builds, runs and reads one from Python; `compare` is its statistics on plain arrays, without a bench.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Bench, Outcome
    from .read.statistics import Comparison, compare

__all__ = ["Bench", "Comparison", "Outcome", "compare"]


def __getattr__(name: str) -> Any:
    """What is public, imported when it is asked for: scipy takes its time, and most of a bench needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api
    from .read import statistics

    return getattr(api if name in ("Bench", "Outcome") else statistics, name)
