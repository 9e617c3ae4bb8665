"""Triggers: on which steps to select (Early AJEST, arXiv 2509.15267; docs/method.md#triggers)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ajest.errors import unknown

_MODES = ("always", "early", "late", "window", "share", "waves")


@dataclass(frozen=True)
class TriggerState:
    """Where a trigger stands.

    Attributes:
        on: whether the next step selects.
        fired_at: the step after which it changed for good, None if it has not.
        advantage: smoothed reference loss minus learner loss on the super-batch; positive: the learner is ahead.
        observations: comparisons taken in.
    """

    on: bool
    fired_at: int | None = None
    advantage: float = 0.0
    observations: int = 0


@dataclass(frozen=True)
class TriggerRule:
    """A trigger that was registered.

    Attributes:
        observe: (state before a step, its number, mean (learner, reference) losses or None, share of the run before it)
            to the state after it.
        begins: whether the first step selects.
        compares: whether it watches the two losses.
    """

    observe: Callable[[TriggerState, int, tuple[float, float] | None, float], TriggerState]
    begins: bool = True
    compares: bool = False


TRIGGERS: dict[str, TriggerRule] = {}


@dataclass(frozen=True)
class Trigger:
    """When to select.

    Two losses are compared on the same examples: those of a super-batch that was scored, or, where nothing is chosen
    from it yet ("late"), that was trained on; then the learner's are those of the training pass, dropout included.

    Attributes:
        mode: "always"; "early": until the learner's mean super-batch loss is below the reference's, then never
            again; "late": from that moment on; "window": on steps `start <= step < stop`; "share": on the first
            `share` of the run; "waves": on the first half of each of `waves` equal parts of the run, so that much and
            little is trained on in turns (PODS, arXiv 2605.14773); or one that was registered, see
            `rules.register_trigger`. "share" and "waves" see how far the run was before the step that ends, and so
            change one step late.
        half_life: comparisons after which an old one counts half. The trigger waits for as many before it may
            fire. 0 compares single batches, as the paper does.
        start, stop: the window, in steps from 0.
        share: of the run.
        waves: how many.
    """

    mode: str = "always"
    half_life: float = 16.0
    start: int = 0
    stop: int = 0
    share: float = 0.0
    waves: int = 8

    def __post_init__(self) -> None:
        if self.mode not in (*_MODES, *TRIGGERS):
            raise unknown("trigger", self.mode, (*_MODES, *TRIGGERS))
        if self.half_life < 0:
            raise ValueError(f"half_life must not be negative, not {self.half_life}")
        if self.mode == "share" and not 0 < self.share < 1:
            raise ValueError(f"a share of the run needs 0 < share < 1, not {self.share}")
        if self.waves < 1:
            raise ValueError(f"waves must be at least 1, not {self.waves}")
        if self.mode == "window" and not 0 <= self.start < self.stop:
            raise ValueError(f"a window needs 0 <= start < stop, not start={self.start}, stop={self.stop}")

    @property
    def compares(self) -> bool:
        """Whether it watches the two losses."""
        return self.mode in ("early", "late") or (self.custom is not None and self.custom.compares)

    @property
    def custom(self) -> TriggerRule | None:
        """The rule of a mode that was registered."""
        return TRIGGERS.get(self.mode)

    def begin(self) -> TriggerState:
        """The state before the first step."""
        if self.custom is not None:
            return TriggerState(on=self.custom.begins)
        at_once = self.mode in ("always", "early", "share", "waves")
        return TriggerState(on=at_once or (self.mode == "window" and self.start == 0))

    def observe(
        self, state: TriggerState, step: int, losses: tuple[float, float] | None = None, progress: float = 0.0
    ) -> TriggerState:
        """The state after step `step` (from 0).

        Args:
            state: before it.
            step: its number.
            losses: mean (learner, reference) losses, if both were taken.
            progress: share of the run before it.
        """
        if self.custom is not None:
            return self.custom.observe(state, step, losses, progress)
        if self.mode == "always":
            return state
        if self.mode == "window":
            return replace(state, on=self.start <= step + 1 < self.stop)
        if self.mode == "waves":
            return replace(state, on=progress * self.waves % 1 < 0.5)
        if self.mode == "share":
            over = state.on and progress >= self.share
            return replace(state, on=False, fired_at=step) if over else state
        if losses is None or state.fired_at is not None:
            return state
        decay = 0.5 ** (1 / self.half_life) if self.half_life else 0.0
        # An average with the start's bias taken out, so that early comparisons weigh no less than late ones.
        weight = (1 - decay) / (1 - decay ** (state.observations + 1))
        advantage = state.advantage + weight * (losses[1] - losses[0] - state.advantage)
        state = replace(state, advantage=advantage, observations=state.observations + 1)
        if advantage > 0 and state.observations >= self.half_life:
            return replace(state, on=self.mode == "late", fired_at=step)
        return state
