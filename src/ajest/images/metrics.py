"""The numbers by which samples of pictures are judged."""

from __future__ import annotations

from torch import Tensor

from ..metrics import Metric
from . import quality
from .extractors import NAMES, Features, class_indices

_PRDC = (
    Metric("precision", "precision", "higher",
           "Share of samples that lie among real pictures, by directions of features. It does not see missing kinds."),
    Metric("recall", "recall", "higher",
           "Share of real pictures that lie among samples. It does not see bad samples."),
    Metric("density", "density", "higher",
           "How many real neighbourhoods hold a sample: precision that counts. Samples that crowd are above 1."),
    Metric("coverage", "coverage", "higher",
           "Share of real pictures with a sample near them. The most robust of the four."),
)  # fmt: skip
_CONSISTENCY = (
    Metric("top1", "class, top-1", "higher",
           "Share of samples that a classifier takes for the class they were asked for, among the data set's classes. "
           "Real pictures show its ceiling.", curve=True),
    Metric("top5", "class, top-5", "higher", "The same, if the class is among its five best guesses."),
)  # fmt: skip
_KID = Metric("kid", "KID × 1000", "lower",
              "Kernel distance between samples and real pictures: 0 for the same distribution, however few samples.",
              scale=1000, curve=True)  # fmt: skip
_LOSS = Metric("loss", "loss", "lower",
               "Mean denoising loss on held-out pictures (training pictures where there are none).",
               guided=False, curve=True)  # fmt: skip

#: Metrics whose expectation does not depend on the number of samples.
FREE_OF_N = ("kid", "kid_low", "kid_high", "top1", "top5")


def metrics_of(extractors: tuple[str, ...], classes: int) -> tuple[Metric, ...]:
    """Metrics with these feature extractors; the first bears the verdict, KID and the neighbour metrics.

    Args:
        extractors: NAME or NAME=PATH each.
        classes: of the data set, that a classifier knows; 0 if none does. Among five or fewer, top-5 says nothing.
    """
    distances = []
    for i, spec in enumerate(extractors):
        name = NAMES[spec.partition("=")[0]]
        meaning = (
            f"Fréchet distance between Gaussians fitted to {name.features} of samples and of real pictures. "
            "It falls with the number of samples: compare it at one n only, and with real pictures in the last row."
        )
        headline = "both" if i == 0 else "no"
        distances.append(Metric(name.key, name.distance, "lower", meaning, headline=headline))  # type: ignore[arg-type]
    return (*distances, _KID, *_PRDC, *_CONSISTENCY[: (classes > 1) + (classes > quality.TOP)], _LOSS)


def compared(
    key: str, real: Features, found: Features, labels: Tensor | None, classes: tuple[str, ...], whole: bool
) -> dict[str, float]:
    """The metrics of pictures against real ones, from the features of both.

    Args:
        key: of the Fréchet distance in these features.
        real, found: features of the references and of the pictures that are judged.
        labels: the class that each judged picture should show, shape (n,), or None.
        classes: keys of the data set's classes.
        whole: take all metrics; else the Fréchet distance alone, and the classes if the network knows them.
    """
    values = {key: quality.frechet_distance(quality.moments(real.features), quality.moments(found.features))}
    indices = class_indices(classes)
    if indices is not None and found.logits is not None and labels is not None:
        values["top1"], values["top5"] = quality.consistency(found.logits, labels, indices)
    if not whole:
        return values
    kid = quality.kid(real.features, found.features)
    near = quality.prdc(real.features, found.features, directions=True)
    values |= {"kid": kid.value, "kid_low": kid.low, "kid_high": kid.high}
    return values | {k: getattr(near, k) for k in ("precision", "recall", "density", "coverage")}
