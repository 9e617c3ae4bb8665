"""The numbers by which samples of images are judged."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from ajest.errors import listed
from ajest.tasks.base import Metric
from ajest.tasks.statistics import prdc

from . import quality
from .extractors import Features, name_of
from .imagenet import strangers
from .references import References

_PRDC = (
    Metric("precision", "precision", "higher",
           "Share of samples within the distance of a real image at which its third neighbour lies. It does not see "
           "missing kinds, and takes noise and blur, whose features are short, for near to everything."),
    Metric("recall", "recall", "higher",
           "The same the other way round: share of real images among samples. It does not see bad samples."),
    Metric("density", "density", "higher",
           "How many real neighbourhoods, of five neighbours, hold a sample: precision that counts. Samples that crowd "
           "are above 1."),
    Metric("coverage", "coverage", "higher",
           "Share of real images with a sample among their five neighbours. The most robust of the four."),
)  # fmt: skip
_DIRECTIONAL = (
    Metric("directional_precision", "directional precision", "higher",
           "Precision with features scaled to length 1, so that noise and blur are far from real images."),
    Metric("directional_coverage", "directional coverage", "higher", "Coverage with features scaled to length 1."),
)  # fmt: skip
_CONSISTENCY = (
    Metric("top1", "class, top-1", "higher",
           "Share of samples that a classifier takes for the class they were asked for, among the data set's classes. "
           "Real images show its ceiling.", curve=True),
    Metric("top5", "class, top-5", "higher", "The same, if the class is among its five best guesses."),
)  # fmt: skip
_KID = Metric("kid", "KID × 1000", "lower",
              "Kernel distance between samples and real images: 0 for the same distribution, however few samples.",
              scale=1000, curve=True)  # fmt: skip
_LOSS = Metric("loss", "loss", "lower",
               "Mean denoising loss on held-out images (training images where there are none).",
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
        name = name_of(spec)
        meaning = (
            f"Fréchet distance between Gaussians fitted to {name.features} of samples and of real images. "
            "It falls with the number of samples: compare it at one n only, and with real images in the last row."
        )
        headline = "both" if i == 0 else "no"
        distances.append(Metric(name.key, name.distance, "lower", meaning, headline=headline, perfect=0))  # type: ignore[arg-type]
    shown = (classes > 1) + (classes > quality.TOP) if any(name_of(e).classifies for e in extractors) else 0
    return (*distances, _KID, *_PRDC, *_DIRECTIONAL, *_CONSISTENCY[:shown], _LOSS)


def compared(
    key: str, real: References, found: Features, labels: Tensor | None, indices: tuple[int, ...] | None, whole: bool
) -> dict[str, float]:
    """The metrics of images against real ones, from the features of both.

    Args:
        key: of the Fréchet distance in these features.
        real: the references.
        found: features of the images that are judged.
        labels: the class that each judged image should show, shape (n,), or None.
        indices: ImageNet's index of each class, or None.
        whole: take all metrics; else the Fréchet distance alone, and the classes if the network knows them.
    """
    values = {key: quality.frechet_distance(real.moments, quality.moments(found.features))}
    if indices is not None and found.logits is not None and labels is not None:
        values["top1"], values["top5"] = quality.consistency(found.logits, labels, indices)
    if not whole:
        return values
    kid = quality.kid(real.near, found.features)
    near = prdc(real.near, found.features)
    turned = prdc(normalize(real.near), normalize(found.features))
    values |= {"kid": kid.value, "kid_low": kid.low, "kid_high": kid.high}
    values |= {k: getattr(near, k) for k in ("precision", "recall", "density", "coverage")}
    return values | {"directional_precision": turned.precision, "directional_coverage": turned.coverage}


def without_classes(
    extractors: tuple[str, ...], keys: tuple[str, ...], names: tuple[str, ...], indices: tuple[int, ...] | None
) -> tuple[str, ...]:
    """Why no classifier says whether samples show their class, if none does, as one sentence."""
    if not keys:
        return ("No class accuracy: the images have no classes.",)
    if not any(name_of(spec).classifies for spec in extractors):
        return ("No class accuracy: of the feature networks only lite0 tells classes.",)
    if indices is not None:
        return ()
    unknown = strangers(keys, names)
    return (
        f"No class accuracy: {len(unknown):,} of the {len(keys):,} classes cannot be found in ImageNet, or not told "
        f"apart there ({listed(unknown, 5)}): --imagenet FILE says which they are.",
    )
