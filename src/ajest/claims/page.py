"""The page of judged claims: answer, forest, a table of all, then each claim with its numbers. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ajest.bench.plan.budgets import BUDGETS, END_CLOCKS
from ajest.bench.read.numbers import number
from ajest.bench.read.statistics import ALPHA, COVERAGE
from ajest.bench.read.table import Entry, Table, TableCell, Tone
from ajest.bench.read.wording import code, gap, metric_head, metric_name, series
from ajest.bench.report.figures import WHISKERS, encoded
from ajest.bench.report.markdown import section
from ajest.bench.report.tables import MARKS
from ajest.storage.checkpoint import write_atomic

from .catalogue import Claim, Group
from .findings import Judged, Left, Test, leading
from .forest import FAR_APART, forests
from .store import VERDICTS, Verdicts, write_verdicts

_TONES: dict[Left, Tone] = {"better": "better", "worse": "worse", "equivalent": "equivalent"}


def write_page(root: Path, verdicts: Verdicts) -> str:
    """Write claims.md, its figure and its `VERDICTS` into a folder; returns the answer, a sentence."""
    found = verdicts.found
    drawn = forests(found)
    for name, (_, figure) in drawn.items():
        write_atomic(root / name, encoded(figure, "png").data)
    write_verdicts(root / VERDICTS, verdicts)
    write_atomic(root / "claims.md", render(verdicts, {name: caption for name, (caption, _) in drawn.items()}))
    return answer(found)


def render(verdicts: Verdicts, figures: Mapping[str, str] | None = None) -> str:
    """The page as Markdown.

    Args:
        verdicts: what was judged.
        figures: what each file of a figure shows; None for a page without.
    """
    found = verdicts.found
    claims = list(dict.fromkeys(one.claim for one in found))
    where = f"at {BUDGETS[END_CLOCKS[leading(found)]].title}"
    parts = [f"# Published claims, judged {where}", f"**{answer(found)}**"]
    if figures:
        parts += [*(f"![{caption}]({name})" for name, caption in figures.items()), f"*{WHISKERS} {FAR_APART}*"]
    parts += section(summary(found, claims), 2)
    rates = _of_rates({claim.group for claim in claims})
    parts += [
        f"{rates} A claim is better where one of its arms is certainly better on a headline metric and none certainly "
        f"worse on any; mixed where both happen. Certain is a Holm-corrected p below {ALPHA:g} over all arms and "
        f"headlines of a bench; intervals hold {COVERAGE}. Made by "
        f"{series(verdicts.commands, len(verdicts.commands))}.",
    ]
    parts += section(nothing(found), 2)
    for claim in claims:
        parts += _of_claim(claim, [one for one in found if one.claim == claim])
    return "\n\n".join(parts) + "\n"


def _of_rates(groups: set[Group]) -> str:
    """Where the learning rates are from, and how they fall."""
    if groups == {"guides"}:
        return "All guides steer the same runs, whose rate was found on other seeds and falls to zero."
    found = "Every arm and the baseline have a learning rate of their own, found on other seeds"
    if groups == {"course"}:
        return f"{found}; how it falls is what is judged."
    return f"{found}; rates fall to zero{', in the group course each by its own rule' if 'course' in groups else ''}."


def answer(found: Sequence[Judged]) -> str:
    """All claims in a sentence."""
    end = leading(found)
    there = [one for one in found if one.end == end and one.left != "unfinished"]
    claims, where = dict.fromkeys(one.claim.name for one in there), f"at {BUDGETS[END_CLOCKS[end]].title}"
    if not claims:
        return f"No claim is judged {where} yet."
    better = [name for name in claims if any(one.left == "better" for one in there if one.claim.name == name)]
    everywhere = [name for name in better if all(one.left == "better" for one in there if one.claim.name == name)]
    many = f"{len(claims)} claim{'s' * (len(claims) > 1)}"
    return f"Of {many} judged {where}, certainly better somewhere: {len(better)}; everywhere: {len(everywhere)}."


def summary(found: Sequence[Judged], claims: Sequence[Claim]) -> Table:
    """A row for each claim: what was published, and what is left in each setting at each budget."""
    columns = list(dict.fromkeys((one.setting, one.end) for one in found))
    budgets = {end: f"at {BUDGETS[END_CLOCKS[end]].title}" for _, end in columns}
    alone = f" {next(iter(budgets.values()))}" if len(budgets) == 1 else ""
    titles = [f"{setting.title}{'' if alone else f', {budgets[end]}'}" for setting, end in columns]
    rows = []
    for claim in claims:
        row: list[Entry] = [f"[{claim.name}](#{claim.name})", f"{claim.published} ({claim.seeds})"]
        for column in columns:
            here = [one for one in found if one.claim == claim and (one.setting, one.end) == column]
            row.append(_left(here[0]) if here else TableCell("-"))
        rows.append(row)
    return Table.of(f"What is left{alone}", ["claim", "published", *titles], rows, (MARKS,))


def nothing(found: Sequence[Judged]) -> Table:
    """How far an arm that changes nothing is off, by bench: an error of timing and tuning that no interval holds."""
    heads = ("on", "group", "budget", "arm", "metric", "minus baseline", "in per cent")
    benches = {(one.setting.title, one.claim.group, BUDGETS[END_CLOCKS[one.end]].title): one.null for one in found}
    rows: list[list[Entry]] = [
        [*where, test.arm, metric_head(test.metric, test.weight), gap(test.baseline, test.metric, tested=True),
         _relative(test)]
        for where, tests in benches.items()
        for test in tests
    ]  # fmt: skip
    return Table.of(
        "How far an arm that changes nothing is off",
        heads,
        rows,
        ("Such an arm has the task's own weight, computed as an arm's. Drawing takes it a little longer, and its "
         "learning rate is found anew. A difference of this size is no finding, whatever its p.",),
    )  # fmt: skip


def _left(one: Judged) -> TableCell:
    first = next(iter(one.tests), None)
    if first is None or one.left == "unfinished":
        return TableCell("unfinished")
    if one.left == "mixed":
        sides: tuple[Left, ...] = ("better", "worse")
        return TableCell(one.left, "; ".join(f"{side}: {_furthest(one.tests, side)}" for side in sides))
    if one.left in ("better", "worse"):
        return TableCell(one.left, _furthest(one.tests, one.left), _TONES[one.left])
    best = max(one.tests, key=lambda test: test.baseline.improvement if test.metric == first.metric else float("-inf"))
    said = f"{best.arm}: {metric_name(best.metric, best.weight)} {_relative(best)}"
    return TableCell(one.left, said, _TONES.get(one.left, ""))


def _furthest(tests: Sequence[Test], outcome: Left) -> str:
    """Of the tests with this outcome that which is furthest from the baseline, in per cent of it."""
    there = [test for test in tests if test.baseline.outcome == outcome]
    test = max(there, key=lambda test: abs(test.baseline.difference / test.baseline.other))
    return f"{test.arm}: {metric_name(test.metric, test.weight)} {_relative(test)}"


def _relative(test: Test) -> str:
    """A difference in per cent of the baseline."""
    return f"{100 * test.baseline.difference / abs(test.baseline.other):+.1f} %"


def _of_claim(claim: Claim, found: Sequence[Judged]) -> list[str]:
    published = f"Published: {claim.published} (seeds: {claim.seeds.removesuffix(' seeds')}). {claim.tests}".strip()
    parts = [f'<a id="{claim.name}"></a>\n## {claim.name}', f"The claim ({claim.paper}): {claim.says}.", published]
    parts += [f"Doubts: {claim.doubts}"] if claim.doubts else []
    parts += ["\n".join(f"- {text}" for one in found for text in sentences(one))]
    for one in found:
        parts += section(_numbers(one), 3) if one.tests else []
    if claim.on_gpu:
        parts.append(f"With a large network, on a GPU: `{claim.on_gpu}`.")
    return parts


_AGAINST: dict[Left, str] = {
    "better": "certainly beats",
    "worse": "is certainly worse than",
    "equivalent": "is equivalent to",
    "undecided": "cannot be told from",
}


def sentences(one: Judged) -> list[str]:
    """What is left of a claim in one setting at one budget, to be quoted."""
    where = f"On {one.setting.title}, at {BUDGETS[END_CLOCKS[one.end]].title}"
    if one.left == "unfinished":
        return [f"{where}: not judged yet."]
    said = []
    for test in one.tests:
        base, metric = test.baseline, test.metric
        numbers = f"{number(base.value, metric)} against {number(base.other, metric)}"
        other = "no guide" if one.claim.group == "guides" else "the tuned baseline"
        verb = f"{code(test.arm)} {_AGAINST[base.outcome]} {other}"
        said.append(f"{where}, {verb} on {metric_name(metric, test.weight)} ({numbers}).")
    for control in dict.fromkeys(name for test in one.tests for name in test.controls):
        for test in one.tests:
            if control in test.controls:
                verb = f"{code(test.arm)} {_AGAINST[test.controls[control].outcome]} the control {code(control)}"
                said.append(f"There {verb} on {metric_name(test.metric, test.weight)}.")
    if one.bound is not None:
        said.append(
            f"By the gradients at the end of the baseline's run it could save some {one.bound.value:.0%} of the "
            f"examples ({one.bound.low:.0%} to {one.bound.high:.0%})."
        )
    if one.untuned:
        said.append(f"The learning rates of {series(list(one.untuned))} were not found within the grid.")
    return said


def _numbers(one: Judged) -> Table:
    """A row for each arm and headline: the difference to the baseline and to each control."""
    controls = list(dict.fromkeys(name for test in one.tests for name in test.controls))
    heads = ["arm", "metric", "mean", "minus baseline", *(f"minus {name}" for name in controls)]
    rows: list[list[Entry]] = [
        [test.arm, metric_head(test.metric, test.weight), number(test.baseline.value, test.metric),
         gap(test.baseline, test.metric, tested=True),
         *(gap(test.controls.get(name), test.metric, tested=True) for name in controls)]
        for test in one.tests
    ]  # fmt: skip
    title = f"{one.setting.title[0].upper()}{one.setting.title[1:]}, {BUDGETS[END_CLOCKS[one.end]].title}"
    return Table.of(title, heads, rows)
