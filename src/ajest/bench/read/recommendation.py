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

#: What `ajest study TASK --preset full` found, its recommendations.json, or a bench whose page says so.
_STORED = "recommendations.json"
#: A bench of so many times the steps, or the examples of a step, is too far off to go by another.
FAR = 4.0


@dataclass(frozen=True)
class Recommendation:
    """What to train with at one kind of budget, as a study's final or a bench decided it.

    Attributes:
        budget: that is equal.
        arm: the recommended one.
        seeds: that stand behind it.
        steps: of the baseline.
        super_batch: examples drawn for each.
        why: in words, after "because".
        how: what else is to be known of the setting, in words to go on with.
        source: page of the docs that shows it; "" is that of the task's study.
    """

    budget: str
    arm: str
    seeds: int
    steps: int
    super_batch: int
    why: str
    how: str = ""
    source: str = ""

    def sentences(self) -> list[str]:
        """What to do, why, and what that rests on."""
        return [f"At {BUDGETS[self.budget].title}, train with `{self.arm}`.", *self.grounds()]

    def grounds(self) -> list[str]:
        """Why, and what that rests on."""
        return [
            f"The reason: {self.why}.",
            f"This rests on {self.seeds} seeds.",
            f"There the baseline took {_taken(self.steps, self.super_batch)}{self.how}; at another length the answer "
            "may differ.",
        ]

    def is_near(self, config: BenchConfig) -> bool:
        """Whether the bench's setting is like enough to ask what holds in this one: its steps, and their examples."""
        pairs = ((self.steps, config.iterations), (self.super_batch, config.recipe.super_batch))
        return all(1 / FAR <= ours / theirs <= FAR for theirs, ours in pairs)


def _taken(steps: int, super_batch: int) -> str:
    return f"{steps:,} steps of {super_batch:,} examples"


def as_json(task: str, found: list[Recommendation]) -> dict[str, Any]:
    """What is stored of a study."""
    return {task: [asdict(r) for r in found]}


@cache
def recommendations(task: str) -> tuple[Recommendation, ...]:
    """Those of the study of a task, which comes with this package; none where no study was made."""
    text = resources.files(__package__).joinpath(_STORED).read_text()
    return tuple(from_json(dict[str, tuple[Recommendation, ...]], json.loads(text), _STORED).get(task, ()))


def cited(config: BenchConfig) -> list[str]:
    """What the study of a bench's task recommends at the bench's budgets; nothing where it has nothing to say of such
    settings."""
    known = [r for r in recommendations(config.task.name) if r.budget in config.budgets and r.is_near(config)]
    here = config.iterations, config.recipe.super_batch
    said = []
    for arm, source in dict.fromkeys((r.arm, r.source) for r in known):
        same = [r for r in known if (r.arm, r.source) == (arm, source)]
        where = " and at ".join(BUDGETS[r.budget].title for r in same)
        page = f"docs/{source}" if source else f"the study in docs/study-{config.task.name}.md"
        said.append(f"By {page}, train with `{arm}` at {where}.")
        said += dict.fromkeys(sentence for r in same for sentence in r.grounds())
        if any((r.steps, r.super_batch) != here for r in same):
            said.append(f"Here it takes {_taken(*here)}.")
    return said
