"""When a run writes what, and when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .trackers import Tracking


@dataclass(frozen=True)
class Schedule:
    """When a run writes what, and when it ends. It never changes the weights on the way.

    Attributes:
        budgets: for each clock the values at whose crossing a snapshot is taken, rising.
        costs: seconds of a step by the label of its kind and by phase, from a calibration; empty: no calibrated clock.
        checkpoint_every: steps after which another checkpoint is written; later where writing the last one takes
            longer, or where copying would take too large a share of the time (`recorder.COPYING_SHARE`).
        checkpoint_seconds: seconds after which one is written, even if fewer steps were taken.
        ledger_every: steps.
        selection_at: steps whose super-batch and kept examples are stored for figures.
        end: (clock, value) at which a run ends, even if steps are left; None: when its steps are taken.
        tracking: who is told of the ledger's lines.
    """

    budgets: dict[str, tuple[float, ...]] = field(default_factory=dict)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    checkpoint_every: int = 256
    checkpoint_seconds: float = 120.0
    ledger_every: int = 32
    selection_at: tuple[int, ...] = ()
    end: tuple[str, float] | None = None
    tracking: Tracking = field(default_factory=Tracking)

    def over(self, now: Mapping[str, float]) -> bool:
        """Whether these clocks say that the run is to end."""
        return self.end is not None and now[self.end[0]] >= self.end[1] * (1 - 1e-9)


def clocks(facts: Mapping[str, Any], step: int, costs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """All clocks of a ledger: steps, samples trained on, network operations, measured and calibrated seconds, and these
    without the exact target (docs/method.md#clocks).

    Calibrated time is steps times the median cost of their kind, measured interleaved with all other kinds;
    "time_without_target" is calibrated time without the tree's exact target.
    """
    values = {
        "steps": float(step),
        "samples": float(facts["trained"]),
        "seconds": sum(facts["seconds"].values()),
        "flops": float(facts["flops"]),
    }
    if all(kind in costs for kind in facts["by_kind"]):
        values["calibrated"] = sum(n * sum(costs[k].values()) for k, n in facts["by_kind"].items())
        spared = sum(n * costs[k].get("target", 0.0) for k, n in facts["by_kind"].items())
        values["time_without_target"] = values["calibrated"] - spared
    return values
