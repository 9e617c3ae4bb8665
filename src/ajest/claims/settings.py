"""On what claims are judged: benches whose arms are yet to be named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ajest.bench.plan.budgets import End
from ajest.bench.plan.config import BenchConfig
from ajest.bench.plan.presets import CPU_SMALL, VECTOR_WIDTHS, tree_full, vectors_quick
from ajest.bench.plan.tuning import Tuning
from ajest.diffusion.noising.ingredients import Target
from ajest.errors import UserError, check
from ajest.selection.arm import Arm
from ajest.selection.catalogue import ARMS, on_running_scale
from ajest.tasks.base import Headline
from ajest.tasks.images.setup import image_task
from ajest.tasks.tree.task import TreeTask
from ajest.tasks.vectors.setup import vectors_task

from .catalogue import Claim, needs_exact

#: First of the seeds that claims are judged on; none of them was looked at before.
FIRST_SEED = 400
#: Where noise is paired with examples, a sampler that starts nearer would start from other points than were learned.
WHERE_PAIRED = 80.0


@dataclass(frozen=True)
class Setting:
    """What claims are judged on.

    Attributes:
        name: for options and folders.
        title: for people.
        seeds: how many training seeds each arm has.
        exact: whether targets are exact, so that claims about their noise have no meaning.
        known: whether the best denoiser is known.
        null: an arm that changes nothing but how its weight, the task's own, is computed: by how much it differs from
            the baseline is the error of timing and tuning.
        by_samples: headlines, unguided, of claims that change which denoiser is the best one: there a loss against the
            task's own says nothing, and learning rates are found by the first of these.
        make: the bench, with the baseline alone; see `with_data` for settings that learn one's own.
        adapt: what arms have to be changed in to fit the super-batch.
        middle: whether its networks show a hidden layer, which terms ask for.
    """

    name: str
    title: str
    seeds: int
    exact: bool
    known: bool
    null: str
    by_samples: tuple[str, ...]
    make: Callable[[], BenchConfig]
    adapt: Callable[[Arm], Arm] = lambda arm: arm
    middle: bool = True

    def judges(self, claim: Claim) -> bool:
        """Whether a claim has a meaning here."""
        meant = not (self.exact and claim.needs_noise) and (self.known or not claim.needs_exact)
        return meant and (self.middle or claim.group != "terms")

    def has(self, arm: Arm) -> bool:
        """Whether an arm can be made here and is another than the baseline."""
        return (self.known or not needs_exact(arm)) and not (self.exact and arm.noising.target == "exact")

    def bench(
        self,
        claims: Sequence[Claim],
        end: End = "time",
        seeds: int | None = None,
        iterations: int | None = None,
        more: Sequence[Arm] = (),
    ) -> BenchConfig:
        """The bench of some claims: the baseline, the claims' arms and their controls, each at a rate of its own. The
        baseline of claims on courses has EDM2's: one whose rate falls to zero already would leave nothing to judge.

        Args:
            claims: that are judged together.
            end: what all runs end at.
            seeds: how many; None takes the setting's own.
            iterations: steps of the baseline; None takes the setting's own.
            more: arms that were found in this setting.
        """
        base = self.plain(iterations)
        named = [*(arm for claim in claims for arm in claim.all_arms()), *more]
        arms = {name: ARMS[name] for name in ("baseline", self.null)} | {arm.name: self.adapt(arm) for arm in named}
        count = self.seeds if seeds is None else seeds
        task = base.task
        if any(arm.noising.pairing is not None for arm in arms.values()):
            task = replace(task, sigma_max=WHERE_PAIRED)  # type: ignore[call-arg]  # of the tree and of vectors
        course = any(claim.group == "course" for claim in claims)
        moved = not all(arm.noising.keeps_best for arm in arms.values())
        return replace(
            base,
            task=task,
            recipe=base.recipe.of(ARMS["inverse-sqrt"]) if course else base.recipe,
            arms=tuple(filter(self.has, arms.values())),
            headlines=dict.fromkeys(self.by_samples, "unguided") if moved else base.headlines,
            seeds=tuple(range(FIRST_SEED, FIRST_SEED + count)),
            end=end,
            tuning=Tuning(metric=self.by_samples[0] if moved else ""),
        )

    def plain(self, iterations: int | None = None) -> BenchConfig:
        """The bench without claims, read at the end of its runs alone; see `bench`. Guides and the strong reference are
        shortened with the runs."""
        base = self.make()
        share = 1.0 if iterations is None else iterations / base.iterations
        return replace(
            base,
            iterations=round(share * base.iterations),
            guide_iterations=max(1, round(share * base.guide_iterations)),
            strong_iterations=max(1, round(share * base.strong_iterations)),
            final_only=True,
            curve=(1.0,),
            n_curve=base.n_final,  # so the end is judged once, for both
            looks=(),
            minutes=None,
            rates={},
            tuned="",
        )


def with_data(setting: Setting, data: Sequence[str], validation: Sequence[str] = ()) -> Setting:
    """A setting that learns one's own data.

    Args:
        setting: "images".
        data: what to learn, see `image_task`.
        validation: what to judge by; without it a part of the data is held out.

    Raises:
        UserError: a setting that brings its own data.
    """
    check(setting.make is _no_images, f"the setting {setting.name} brings its own data: leave out --data")
    return replace(setting, make=partial(_images, tuple(data), tuple(validation)))


def _images(data: tuple[str, ...], validation: tuple[str, ...]) -> BenchConfig:
    task = image_task(data, validation, classes=CPU_SMALL.classes, warn=lambda _: None, **CPU_SMALL.settings(data))  # type: ignore[arg-type]
    return CPU_SMALL.bench(task)


def _for_small_batches(arm: Arm) -> Arm:
    return on_running_scale(replace(arm, chunks=CPU_SMALL.chunks) if arm.scores else arm)


def _no_images() -> BenchConfig:
    raise UserError("the setting images learns pictures of yours: name them with --data")


def _tree(target: Target) -> BenchConfig:
    """Half the steps of the preset full, and half its samples, by which its pilot told arms apart as well."""
    full = tree_full()
    return replace(full, task=TreeTask(target=target), iterations=256, guide_iterations=256, n_final=4096)


def _vectors(data: str, headlines: dict[str, Headline], rate: float) -> BenchConfig:
    """At a rate around which the best ones were found before: tuning begins there."""
    hidden, guide_hidden = VECTOR_WIDTHS["quick"]
    quick = vectors_quick(vectors_task((data,), warn=lambda _: None, hidden=hidden, guide_hidden=guide_hidden))
    recipe = replace(quick.recipe, learning_rate=replace(quick.recipe.learning_rate, peak=rate))
    # One guide: nothing that is guided is a headline.
    return replace(quick, recipe=recipe, headlines=headlines, guides=1, iterations=600, strong_iterations=1200)


_POINTS, _TREE = ("energy_distance",), ("energy_distance", "mandala")
_ALL = (
    Setting("tree", "the tree, exact targets", 20, True, True, "eps-weight", _TREE,
            lambda: _tree("exact")),
    Setting("tree-x0", "the tree, clean examples as targets", 20, False, True, "eps-weight",
            _TREE, lambda: _tree("x0")),
    Setting("mixture", "a mixture in 16 dimensions", 10, False, True, "edm-weight", _POINTS,
            lambda: _vectors("mixture-16d", {"excess_loss": "unguided", "energy_distance": "unguided"}, 0.005)),
    Setting("digits", "digits of 8 by 8 pixels", 10, False, False, "edm-weight", _POINTS,
            lambda: _vectors("digits", {"loss": "unguided", "energy_distance": "unguided"}, 0.02)),
    Setting("images", "photographs of 16 by 16 pixels", 10, False, False, "edm-weight", ("fd_lite0",),
            _no_images, _for_small_batches, middle=False),
)  # fmt: skip

SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _ALL}
