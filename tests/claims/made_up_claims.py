"""Claims judged by runs that nobody made."""

from ajest.bench.read.statistics import corrected, paired
from ajest.claims.findings import Judged, Test
from ajest.claims.settings import SETTINGS
from ajest.tasks.tree.task import METRICS

LOSS = next(m for m in METRICS if m.name == "loss")
BASE = {seed: 1 + 0.01 * (seed % 3) for seed in range(8)}


def judged(claim, *shifts, control=None, end="time", finished=True):
    """A claim whose first arms differ by so much from the baseline, and from a control."""
    arms = claim.arms[: len(shifts)]
    noise = {seed: 1e-3 * ((7 * seed) % 5 - 2) for seed in BASE}
    values = [{s: v + shift + noise[s] for s, v in BASE.items()} for shift in shifts]
    margins = dict.fromkeys(BASE, 0.05)
    against = corrected([paired(mine, BASE, -1, list(BASE), margins) for mine in values])
    other = {} if control is None else {s: v + control + 2 * noise[s] for s, v in BASE.items()}
    held = [paired(mine, other, -1, list(BASE), margins) for mine in values]
    controls = [{} if one is None else {claim.controls[0]: corrected([one])[0]} for one in held]
    tests = [
        Test(arm, LOSS, 1.0, found, tuple(mine[s] - BASE[s] for s in BASE), c)
        for arm, found, mine, c in zip(arms, against, values, controls, strict=True)
    ]
    return Judged(claim, SETTINGS["tree"], end, tuple(tests), finished, ())
