"""What a probe and branches say, as tables and sentences."""

from __future__ import annotations

import math

from ajest.training.branches import Branch, Branches
from ajest.training.probe import Estimate, Probe

from .statistics import LEAST_SEEDS, Comparison, corrected, paired
from .table import Entry, Table, TableCell

#: Below this, what a claim could save at most is less than a bench of twenty seeds can show.
_LITTLE = 0.02


def probe_table(found: Probe) -> Table:
    """Shares of the variance, and what claims could save at most."""
    shares = (
        ("variance between examples", found.between_examples, "variance"),
        ("variance between noise levels", found.between_levels, "variance; examples saved by strata, at most"),
        ("best density of noise levels", found.levels, "examples saved, at most"),
        ("best choice of examples and levels", found.importance, "examples saved, at most"),
        (f"several levels an example (best: {found.best_levels})", found.several_levels, "time saved, at most"),
    )
    rows: list[list[Entry]] = [[name, *_cells(e, "{:.1%}"), TableCell(what, tone="text")] for name, e, what in shares]
    rows.append(["critical batch", *_cells(found.critical_batch, "{:,.0f}"), TableCell("examples", tone="text")])
    return Table.of(
        f"Gradients of {found.folder} at step {found.step:,}",
        ("", "estimate", "95 % interval", TableCell("of", tone="text")),
        rows,
        (f"{found.examples:,} gradients of single examples, of the averaged network.",),
    )


def _cells(estimate: Estimate, form: str) -> tuple[str, str]:
    def shown(value: float) -> str:
        return form.format(value) if math.isfinite(value) else "no end"

    return shown(estimate.value), f"{shown(estimate.low)} to {shown(estimate.high)}"


def probe_sentences(found: Probe) -> tuple[str, ...]:
    """What each claim could gain here at most, a sentence each."""
    return (
        _saves("Stratified noise levels", found.between_levels, "examples"),
        _saves("Another density of noise levels with the same objective", found.levels, "examples"),
        _saves("Choosing examples, weighted back to the same objective,", found.importance, "examples"),
        "One noise level an example is best at what drawing costs here."
        if found.best_levels == 1
        else _saves(f"Up to {found.best_levels} noise levels an example", found.several_levels, "time"),
        _batch(found),
    )


def _saves(what: str, estimate: Estimate, of: str) -> str:
    if estimate.high < _LITTLE:
        return f"{what} can gain next to nothing here: at most {estimate.high:.1%} of the {of}."
    return f"{what} can save at most {estimate.value:.0%} of the {of} (up to {estimate.high:.0%})."


def _batch(found: Probe) -> str:
    critical = found.critical_batch
    if not math.isfinite(critical.value):
        return "The mean gradient cannot be seen under its noise: take more --examples to find the critical batch."
    if critical.low > found.batch:
        return (
            f"Its {found.batch:,} examples a step are fewer than the critical batch: larger steps would use them well."
        )
    if critical.high < found.batch:
        return (
            f"Its {found.batch:,} examples a step are more than the critical batch: smaller steps would learn as much."
        )
    if critical.high > 4 * critical.low:
        most = f"{critical.high:,.0f}" if math.isfinite(critical.high) else "more than can be seen"
        return f"The critical batch lies between {critical.low:,.0f} and {most}: take more --examples to tell."
    return f"Its {found.batch:,} examples a step are about the critical batch."


def branches_table(found: Branches) -> Table:
    """The loss after as many examples, by batch, and its difference to that of the run's own batch."""
    against = _against_own(found)
    rows: list[list[Entry]] = [
        [f"{b.batch:,}", f"{b.rate:.3g}", f"{b.steps:,}", f"{b.loss:.4g}", _difference(against.get(b.batch))]
        for b in found.branches
    ]
    return Table.of(
        f"Branches of {found.folder} from step {found.step:,} over {found.examples:,} examples",
        ("batch", "rate", "steps", "loss", f"minus {found.own:,}, 95 % interval"),
        rows,
        (f"Before them the loss was {found.before:.4g}. Rates follow the root of the batch.",),
    )


def branches_sentence(found: Branches) -> str:
    """Up to which batch a step learns as much from an example."""
    if len(found.branches[0].losses) < LEAST_SEEDS:
        return f"Fewer than {LEAST_SEEDS} repeats of each branch decide nothing: raise --repeats."
    against = _against_own(found)
    worse = [b.batch for b in found.branches if b.batch > found.own and against[b.batch].outcome == "worse"]
    better = [b.batch for b in found.branches if b.batch < found.own and against[b.batch].outcome == "better"]
    if better:
        return f"Batches of {min(better):,} learn certainly more from as many examples: the critical batch is smaller."
    larger = [b.batch for b in found.branches if found.own < b.batch < min(worse, default=math.inf)]
    if not larger:
        return (
            f"The critical batch is about {found.own:,}: no smaller one learns certainly more, and one of "
            f"{min(worse):,} learns certainly less."
        )
    end = "no branch was larger" if not worse else f"{min(worse):,} learns certainly less"
    return f"Up to {max(larger):,} examples a step nothing is certainly lost; {end}."


def _against_own(found: Branches) -> dict[int, Comparison]:
    """Every other batch against the run's own, by repeat, corrected together."""
    own = next(b for b in found.branches if b.batch == found.own)
    others = [b for b in found.branches if b is not own]
    pairs = [paired(_by_repeat(b), _by_repeat(own), -1, range(len(own.losses))) for b in others]
    tested = corrected([pair for pair in pairs if pair is not None])
    return {b.batch: comparison for b, comparison in zip(others, tested, strict=True)}


def _by_repeat(branch: Branch) -> dict[int, float]:
    return dict(enumerate(branch.losses))


def _difference(comparison: Comparison | None) -> str:
    if comparison is None:
        return ""
    return f"{comparison.difference:+.2g} ({comparison.low:.2g} to {comparison.high:.2g})"
