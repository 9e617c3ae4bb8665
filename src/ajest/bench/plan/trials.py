"""The runs by which learning rates are found, as a bench of their own (docs/method.md#tuning)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ajest.selection.arm import Arm

from .config import BenchConfig
from .tuning import Tuning


def tried_for(config: BenchConfig, shared: bool) -> dict[str, str]:
    """For every arm the arm whose rate it takes: itself, or of those that share one the first. The baseline's stands
    first."""
    arms = sorted(config.arms, key=lambda arm: arm.name != config.baseline)
    first: dict[object, str] = {}
    keyed: Callable[[Arm], object] = (
        (lambda arm: _alike(arm, config.recipe.super_batch)) if shared else (lambda arm: arm.name)
    )
    return {arm.name: first.setdefault(keyed(arm), arm.name) for arm in arms}


def _alike(arm: Arm, super_batch: int) -> tuple[object, ...]:
    """What arms that share a rate have in common."""
    chooses = any(kind.chooses for kind in arm.kinds())
    whole = any(kind.trains_on_all for kind in arm.kinds())
    return arm.kept(super_batch), chooses, whole, arm.unbiased, arm.updates


def trial_bench(config: BenchConfig, tuning: Tuning, rates: Sequence[float]) -> BenchConfig:
    """Every arm that is tried at each of these rates, as arms of one bench that is read at the end of its runs."""
    known = {arm.name: arm for arm in config.arms}
    tried = dict.fromkeys(tried_for(config, tuning.shared).values())
    at = {trial_name(name, rate): (known[name], rate) for name in tried for rate in rates}
    return replace(
        config,
        arms=tuple(replace(arm, name=name) for name, (arm, _) in at.items()),
        rates={name: rate for name, (_, rate) in at.items()},
        seeds=tuning.seeds,
        final_only=True,
        curve=(1.0,),
        guides=1,
        noise_repeats=0,
        looks=(),
        minutes=None,
        tuning=None,
    )


def trial_name(arm: str, rate: float) -> str:
    return f"{arm}-rate-{rate:.6g}"
