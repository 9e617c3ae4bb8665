"""Rules of the user's own: policies, normalisations, triggers, ways of noising, courses and arms, registered by name.

A file of rules is code of the user's (`ajest bench tree --rules my_rules.py`). An arm that needs one carries its place
and its digest, so that workers, clusters and later days read the same code before they look a name up.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ajest.diffusion.noising import ALLOCATIONS, CONTRASTS, DENSITIES, PAIRINGS, WEIGHTS
from ajest.diffusion.noising.allocations import Profile, Reads, Rule
from ajest.errors import check, listed
from ajest.runtime import plugins
from ajest.storage import config

from .normalisation import NORMALISATIONS, by_stratum
from .registry import POLICIES, Policy
from .scoring import Scores
from .triggers import TRIGGERS, TriggerRule, TriggerState
from .updates import FALLS, INVERSE_SQRT

DIALS = frozenset({"temperature", "normalise", "strata", "chunks", "power", "redundancy"})
NEEDS = frozenset({"learner", "reference", "sigma", "features"})

Kind = Literal["policy", "normalisation", "trigger", "density", "weight", "allocation", "pairing", "contrast", "course"]

_places: dict[tuple[Kind, str], RulesFile] = {}  # of what was registered, by kind and name


@dataclass(frozen=True)
class RulesFile:
    """Where rules come from, see `plugins.Origin`."""

    place: str
    digest: str


def load_rules(path: Path) -> RulesFile:
    """Run a file, or a module that can be imported, that registers rules.

    Raises:
        UserError: there is no such file, its code fails, or a rule is none.
    """
    _, origin = plugins.load_module(str(path))
    return RulesFile(origin.place, origin.digest)


def register_policy(
    name: str,
    function: Callable[..., Tensor],
    *,
    needs: Iterable[str] = ("learner",),
    dials: Iterable[str] = (),
    summary: str = "",
    inclusion: Callable[..., Tensor] | None = None,
) -> None:
    """Make a policy known to arms.

    Args:
        name: by which arms name it.
        function: `function(scores, count, generator, **dials)` to the indices of the chosen examples, shape (count,),
            int64, on the scores' device; a pure function of these.
        needs: what it reads of `Scores`: "learner", "reference", "sigma", "features"; the rest is not computed.
        dials: names of its keyword arguments that arms may set, of those that arms have.
        summary: one line for people.
        inclusion: the probability of being chosen, of the same arguments without the generator; needed for arms that
            are unbiased.

    Raises:
        UserError: another policy has the name, it reads or has what there is not, or it does not choose as it should.
    """
    needs, dials = frozenset(needs), frozenset(dials)
    check(needs <= NEEDS, f"policy {name!r}: there is no {listed(sorted(needs - NEEDS))} to read; known: {_all(NEEDS)}")
    check(
        dials <= DIALS, f"policy {name!r}: arms have no dial {listed(sorted(dials - DIALS))}; they have: {_all(DIALS)}"
    )
    _check_choice(name, function)
    _register("policy", name, POLICIES, Policy(function, needs, dials, summary, inclusion), function)


def register_normalisation(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Make a normalisation known to arms.

    Args:
        name: by which arms name it.
        function: (values of shape (B,), float32 or float64; the stratum of each, int64) to values on one scale.

    Raises:
        UserError: another normalisation has the name, or it gives something else than it should.
    """
    values, stratum = torch.linspace(-1, 2, 16), torch.arange(16) // 8
    _tried("normalisation", name, lambda given: function(given, stratum), values)
    check(name not in ("none", "running"), f"there is another normalisation {name!r}: choose another name")
    _register("normalisation", name, NORMALISATIONS, by_stratum(function), function)


def register_trigger(
    name: str,
    observe: Callable[[TriggerState, int, tuple[float, float] | None, float], TriggerState],
    *,
    begins: bool = True,
    compares: bool = False,
) -> None:
    """Make a trigger known to arms, as `Trigger(name)`.

    Args:
        name: by which arms name it.
        observe: the state after a step, see `TriggerRule`.
        begins: whether the first step selects.
        compares: whether it watches the losses of learner and reference.

    Raises:
        UserError: another trigger has the name, or it gives no state.
    """
    state = TriggerState(on=begins)
    found = plugins.ran(f"trigger {name!r}", lambda: observe(state, 0, (1.0, 1.0) if compares else None, 0.0))
    check(isinstance(found, TriggerState), f"trigger {name!r} must give a TriggerState, as dataclasses.replace does")
    built_in = ("always", "early", "late", "window", "share")
    check(name not in built_in, f"there is another trigger {name!r}: choose another name")
    _register("trigger", name, TRIGGERS, TriggerRule(observe, begins, compares), observe)


def register_density(name: str, function: Callable[..., Tensor]) -> None:
    """Make a density of noise levels known to arms, as `Levels(name, location, scale)`.

    Args:
        name: by which arms name it.
        function: of z = (ln r - location) / scale, float64 of shape (n,), and numbers with defaults, to the logarithm
            of the density at z, up to a constant; minus infinity where there is none.

    Raises:
        UserError: another density has the name, or it gives something else than it should.
    """
    z = torch.linspace(-3, 3, 33, dtype=torch.float64)
    found = _tried("density", name, function, z)
    check(
        bool((found < torch.inf).all()) and bool(found.isfinite().any()),
        f"density {name!r} must be finite or minus infinity, and not everywhere minus infinity",
    )
    _register("density", name, DENSITIES, function, function)


def register_weight(name: str, function: Callable[..., Tensor]) -> None:
    """Make a weight of the squared error known to arms, as `Weighting(name)`.

    Args:
        name: by which arms name it.
        function: of r = sigma / sigma_data, shape (n,), and numbers with defaults, to weights, shape (n,): at least 0.

    Raises:
        UserError: another weight has the name, or it gives something else than it should.
    """
    found = _tried("weight", name, function, torch.logspace(-3, 3, 33))
    check(bool(found.isfinite().all()) and bool((found >= 0).all()), f"weight {name!r} must be finite and at least 0")
    _register("weight", name, WEIGHTS, function, function)


def register_allocation(name: str, function: Callable[..., Tensor], *, reads: Reads = "nothing") -> None:
    """Make an allocation of noise levels known to arms, as `Allocation(name)`.

    Args:
        name: by which arms name it.
        function: of an `ajest.diffusion.noising.allocations.Profile`, and numbers with defaults, to the density of
            ln r, float64 of shape (bins,), up to a constant.
        reads: what it reads of losses: "nothing"; "loss", the error against whatever is the target; or "error", that
            against the clean example.

    Raises:
        UserError: another allocation has the name, or it gives something else than it should.
    """
    r = torch.logspace(-3, 3, 33, dtype=torch.float64)
    error = r / (1 + r)
    known = Profile(r, torch.ones_like(r), r.square().reciprocal(), error, error.square(), 2 * error)
    found = _tried("allocation", name, lambda _: function(known), r)
    check(
        bool((found >= 0).all()) and bool(found.sum() > 0), f"allocation {name!r} must be at least 0, not 0 everywhere"
    )
    _register("allocation", name, ALLOCATIONS, Rule(function, reads), function)


def register_pairing(name: str, function: Callable[..., Tensor]) -> None:
    """Make a pairing of noise and examples known to arms, as `Pairing(name, among, candidates)`.

    Args:
        name: by which arms name it.
        function: of examples, shape (n, d), noises drawn for each, shape (n, k, d), its own first, and numbers with
            defaults, to the number of the noise that each gets among all n k of them, int64 of shape (n,). Where
            examples are not paired among several, each must be looked at alone.

    Raises:
        UserError: another pairing has the name, or it gives something else than it should.
    """
    normal = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    found = plugins.ran(f"pairing {name!r}", lambda: function(normal[0], normal[1:].transpose(0, 1)))
    right = isinstance(found, Tensor) and found.dtype == torch.int64 and found.shape == (4,)
    check(
        right and bool(((found >= 0) & (found < 8)).all()),
        f"pairing {name!r} must give the number of a noise for each example, int64 of shape (n,)",
    )
    _register("pairing", name, PAIRINGS, function, function)


def register_contrast(name: str, function: Callable[..., Tensor]) -> None:
    """Make a contrast known to arms, as `Contrast(name, share)`.

    Args:
        name: by which arms name it.
        function: of noised examples x, shape (n, ...), their sigma and sigma / sigma_data, shape (n, 1, ...), other
            clean examples and other noise, of the shape of x, and numbers with defaults, to the target that the
            denoiser is pushed away from, of the shape of x; affine in the last two tensors.

    Raises:
        UserError: another contrast has the name, or it gives something else than it should.
    """
    x, x0, eps, zero = torch.randn(4, 33, 2, generator=torch.Generator().manual_seed(0))
    sigma = torch.logspace(-2, 2, 33)[:, None]

    def at(share: float) -> Tensor:
        return _tried("contrast", name, lambda x: function(x, sigma, 2 * sigma, share * x0, share * eps + zero), x)

    affine = torch.allclose(at(0.5), (at(0.0) + at(1.0)) / 2, rtol=1e-3, atol=1e-3)
    check(affine, f"contrast {name!r} must be affine in the other example and the other noise, and is not")
    _register("contrast", name, CONTRASTS, function, function)


def register_course(name: str, function: Callable[[float, float], float]) -> None:
    """Make a course of the learning rate known to arms, as `Updates(course=name, decay=decay)`.

    Args:
        name: by which arms name it.
        function: of the share of the run that is done, 0 to 1, and the arm's decay, above 0 and at most 1, to the part
            of the peak that is left: at least 0 and finite.

    Raises:
        UserError: another course has the name, or it gives something else than it should.
    """
    shares = [k / 8 for k in range(9)]
    found = plugins.ran(f"course {name!r}", lambda: [function(share, 0.5) for share in shares])
    right = all(isinstance(part, int | float) and 0 <= part < math.inf for part in found)
    check(right, f"course {name!r} must give a finite number, at least 0, for each share of the run")
    check(name != INVERSE_SQRT, f"there is another course {name!r}: choose another name")
    _register("course", name, FALLS, function, function)


def _tried(kind: Kind, name: str, function: Callable[..., Tensor], values: Tensor) -> Tensor:
    """What a function of noise levels makes of some."""
    found = plugins.ran(f"{kind} {name!r}", lambda: function(values))
    right = isinstance(found, Tensor) and found.shape == values.shape and found.is_floating_point()
    check(right, f"{kind} {name!r} must give as many floating-point numbers as it was given")
    return found


def rules_of(*named: tuple[Kind, str | None]) -> RulesFile | None:
    """The code of the user's that these kinds of names come from, None where all come with the package.

    Raises:
        UserError: they come from several files, of which an arm can carry one.
    """
    found = list(dict.fromkeys(_places[kind, name] for kind, name in named if name and (kind, name) in _places))
    check(len(found) <= 1, f"the rules of one arm stand in several files: {', '.join(f.place for f in found)}")
    return found[0] if found else None


def place_of(arm_rules: RulesFile | None) -> str:
    """Where an arm's rules come from, for people."""
    return "" if arm_rules is None else arm_rules.place or "this session"


def _register(kind: Kind, name: str, known: dict[str, Any], value: Any, function: Any) -> None:
    module = sys.modules[function.__module__] if hasattr(function, "__module__") else sys.modules["__main__"]
    origin = plugins.origin_of(module)
    here = RulesFile(origin.place, origin.digest)
    before = _places.get((kind, name))
    check(
        name not in known or (before is not None and before.place == here.place),
        f"there is another {kind} {name!r}: choose another name",
    )
    known[name], _places[kind, name] = value, here


def _check_choice(name: str, function: Callable[..., Tensor]) -> None:
    """Try a policy on a few made-up scores."""
    numbers = torch.Generator().manual_seed(0)
    losses = torch.rand(2, 32, generator=numbers)
    scores = Scores(losses[0], losses[1], losses[0].exp(), features=torch.randn(32, 4, generator=numbers))
    chosen = [
        plugins.ran(f"policy {name!r}", lambda: function(scores, 8, torch.Generator().manual_seed(1))) for _ in range(2)
    ]
    indices = chosen[0]
    right = isinstance(indices, Tensor) and indices.dtype == torch.int64 and indices.shape == (8,)
    check(right, f"policy {name!r} must give the indices of `count` examples, int64 of shape (count,)")
    check(bool(((indices >= 0) & (indices < 32)).all()), f"policy {name!r} chooses examples that there are not")
    check(torch.equal(*chosen), f"policy {name!r} chooses anew for the same generator: draw from the one it is given")


def _all(names: Iterable[str]) -> str:
    return listed(sorted(names))


def _read(value: Any, _: Any) -> RulesFile:
    place, digest = str(value["place"]), str(value["digest"])
    check(bool(place), "an arm's rules live in no file: register them again in Python before its folder is read")
    plugins.load_module(place, digest)
    return RulesFile(place, digest)


config.register(RulesFile, lambda rules: {"place": rules.place, "digest": rules.digest}, _read)
