"""What the studies recommend for each kind of budget, as a bench's verdict cites it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any

from ajest.bench.plan.budgets import BUDGETS
from ajest.bench.plan.config import BenchConfig
from ajest.storage.config import from_json

#: What `ajest study TASK --preset full` found: its recommendations.json, one list a task.
_STORED = "recommendations.json"


@dataclass(frozen=True)
class Recommendation:
    """What to train with at one kind of budget, as a study's final decided it.

    Attributes:
        budget: that is equal.
        arm: the recommended one.
        seeds: that stand behind it.
        length: what the baseline does within it, in words: the verdict at another length may be another.
        why: in words, after "because".
    """

    budget: str
    arm: str
    seeds: int
    length: str
    why: str

    def __str__(self) -> str:
        return f"at {BUDGETS[self.budget].title} `{self.arm}`, because {self.why} ({self.seeds} seeds, {self.length})"


def as_json(task: str, found: list[Recommendation]) -> dict[str, Any]:
    """What is stored of a study."""
    return {task: [asdict(r) for r in found]}


@cache
def recommendations(task: str) -> tuple[Recommendation, ...]:
    """Those of the study of a task, which comes with this package; none where no study was made."""
    text = resources.files(__package__).joinpath(_STORED).read_text()
    return tuple(from_json(dict[str, tuple[Recommendation, ...]], json.loads(text), _STORED).get(task, ()))


def cited(config: BenchConfig) -> list[str]:
    """A sentence for the budgets of a bench, if the study of its task has anything to say on them."""
    known = [r for r in recommendations(config.task.name) if r.budget in config.budgets]
    if not known:
        return []
    return [f"What to train with, by the study in docs/study-{config.task.name}.md: {'; '.join(map(str, known))}."]
