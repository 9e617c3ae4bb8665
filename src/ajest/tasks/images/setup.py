"""From a data set to a task on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ajest.errors import check, listed
from ajest.runtime.distributed import once, rank
from ajest.tasks.images.data.sizes import USUAL_RESOLUTION, check_resolution, resolution_of, what_is_changed
from ajest.tasks.images.data.splits import Split

from .architecture import NetworkSettings
from .data import ImageSet, classes_wanted, is_keyword, of_classes, sizes_of
from .data.embeddings import read_embeddings
from .data.latents import decoder, is_latents, open_set, read_latents
from .imagenet import read_indices
from .task import ImageTask

LEAST_HELD_OUT, LEAST_LEARNED = 16, 128


def image_task(
    data: tuple[str, ...],
    validation: tuple[str, ...] = (),
    resolution: int | None = None,
    classes: int | tuple[str, ...] | None = None,
    at_most: int | None = None,
    skip_bad: bool = False,
    warn: Callable[[str], None] = print,
    imagenet: Path | None = None,
    embeddings: tuple[str, ...] = (),
    **settings: object,
) -> ImageTask:
    """The task of a data set.

    Args:
        data: training images, as `open_images` reads them.
        validation: held-out images of the same classes.
        resolution: height and width to bring images to; None takes that of the training images if all are square
            and of one size that networks can learn, else 64.
        classes: learn these alone, named or keyed; or so many, spread over the list of classes; None learns all.
        at_most: learn so many classes if there are more; one line then says so.
        skip_bad: go on without files that cannot be read.
        warn: told about those, and about images that are cropped, resized or left out.
        imagenet: JSON file that says which class of ImageNet each class is, see `read_indices`; without it they are
            known by WordNet ids and names.
        embeddings: what networks are told in the place of classes, see `read_embeddings`.
        settings: other fields of `ImageTask`.

    Raises:
        UserError: the data cannot be read; too few images; a resolution or number of classes that cannot be; networks
            that do not fit the resolution.
    """
    warn = _silent if rank() else _once(warn)  # of several processes one speaks
    sizes, own = _sizes(data, "train"), resolution is None
    resolution = resolution_of(sizes) if resolution is None else resolution
    mend = "; --resolution names another size" if own else ""
    check_resolution(resolution)
    in_grey = bool(settings.get("grey", False))
    known = open_set(data, resolution, "train", skip_bad, warn, in_grey)
    learner = settings.get("learner", ImageTask.learner)
    assert isinstance(learner, NetworkSettings)
    told = read_embeddings(embeddings) if embeddings else None
    labelled = learner.labelled and told is None
    check(told is None or classes is None, "networks are told embeddings in the place of classes: leave out --classes")
    chosen = known.only(_wanted(known, classes, at_most) if labelled else _none_of(classes, learner))
    train = chosen if told is None else told.of(chosen)
    left_out = _left_out(known, train) if classes is None and labelled else ""
    if told is not None:
        warn(f"{' '.join(data)}: networks are told embeddings, no classes")
    elif not learner.labelled and known.classes:
        warn(f"{learner.name} takes no classes: the images of all {len(known.classes)} are learned without labels")
    elif len(known.classes) < 2:
        what = f"one class, {listed(known.classes)}" if known.classes else "no classes, so the network is unconditional"
        warn(f"{' '.join(data)}: {what}")
    check(
        len(train) >= LEAST_LEARNED,
        f"{' '.join(data)} holds {len(train)} images to learn{left_out and f' ({left_out})'}: too few to judge "
        f"samples by; {LEAST_LEARNED} are the least",
    )
    said = [
        _of_size(resolution) if own and not is_latents(data) else "",
        what_is_changed(sizes, resolution, "images", mend),
        left_out and f"learning {left_out}",
    ]
    held_out = None
    if validation:
        others = open_set(validation, resolution, "val", skip_bad, warn, in_grey)
        held_out = _held_out(validation, others, known, chosen, warn)
        held_out = held_out if told is None else told.of(held_out)
    if validation:
        said.append(what_is_changed(_sizes(validation, "val"), resolution, "validation images", mend))
    if is_latents(data):
        settings = _of_latents(data, validation) | settings
    task = ImageTask(
        data=tuple(_absolute(s) for s in data),
        validation=tuple(_absolute(s) for s in validation),
        digest=train.digest,
        validation_digest="" if held_out is None else held_out.digest,
        size=len(train),
        classes=train.classes,
        names=train.names,
        embeddings=tuple(_absolute(s) for s in embeddings),
        embedding=() if train.embeddings is None else tuple(train.embeddings.shape[1:]),
        resolution=resolution,
        held_out=0 if held_out is None else len(held_out),
        imagenet=() if imagenet is None else read_indices(imagenet, train.classes, train.names),
        **settings,  # type: ignore[arg-type]
    )
    for network in (task.learner, task.guide):
        network.fit(task.shape[1], task.shape[0], len(task.classes), task.label_dropout, task.embedding)
        check(
            task.sigma_max <= network.sigma_max * 1.001,
            f"the schedule of {network.name} knows noise levels up to {network.sigma_max:.4g}, and samples begin at "
            f"{task.sigma_max:g}: name --sigma-max {network.sigma_max:.3g}",
        )
    if task.latents is not None:
        decoder(task.autoencoder, task.latents)  # before anything is trained
    for line in filter(None, said):
        warn(line)
    return task


def _of_latents(data: tuple[str, ...], validation: tuple[str, ...]) -> dict[str, object]:
    """Settings of a task whose images are learned as latents."""
    found = read_latents(data[0])
    check(
        not validation or (is_latents(validation) and read_latents(validation[0]).space == found.space),
        f"{data[0]} holds latents, and {' '.join(validation)} none of the same autoencoder: encode these images too "
        "(ajest data encode)",
    )
    return {"latents": found.space, "sigma_data": found.sigma_data, "autoencoder": found.autoencoder}


def _held_out(
    validation: tuple[str, ...],
    found: ImageSet,
    known: ImageSet,
    train: ImageSet,
    warn: Callable[[str], None],
) -> ImageSet:
    """The held-out images of the classes that are learned.

    Args:
        validation, warn: see `image_task`.
        found: all images of it.
        known: all training images.
        train: those that are learned.
    """
    found, notes = of_classes(found, known.classes, train.classes)
    for note in notes:
        warn(note)
    check(
        found.digest != train.digest,
        f"{' '.join(validation)} holds the training images themselves: name others for --validation, or none",
    )
    check(
        len(found) >= LEAST_HELD_OUT,
        f"{' '.join(validation)} holds {len(found)} images of these classes: {LEAST_HELD_OUT} are the least",
    )
    return found


def _of_size(resolution: int) -> str:
    """What a resolution of the images' own means for the time that presets promise; empty where they keep it."""
    times, usual = resolution**2 / USUAL_RESOLUTION**2, f"{USUAL_RESOLUTION} x {USUAL_RESOLUTION}"
    own = f"images are learned at their own {resolution} x {resolution}, {times:.1f} times the work of {usual}"
    return f"{own}; --resolution names another size" if times > 1 else ""


def _silent(text: str) -> None:
    """Say nothing."""


def _once(warn: Callable[[str], None]) -> Callable[[str], None]:
    """What is true of one archive is said once, though it may hold training and validation images."""
    said: set[str] = set()

    def tell(text: str) -> None:
        if text not in said:
            said.add(text)
            warn(text)

    return tell


def _absolute(spec: str) -> str:
    """A path from anywhere; what is no path stays as it is."""
    return spec if is_keyword(spec) or not Path(spec).exists() else str(Path(spec).resolve())


def _sizes(spec: tuple[str, ...], split: Split) -> Counter[tuple[int, int]]:
    """Sizes of the stored images; of several processes one looks."""
    if is_latents(spec):
        n, _, height, width = read_latents(spec[0]).images.images.shape
        return Counter({(width, height): n})
    found = once(lambda: [[w, h, n] for (w, h), n in sizes_of(spec, split).items()])
    return Counter({(w, h): n for w, h, n in found})


def _wanted(images: ImageSet, classes: int | tuple[str, ...] | None, at_most: int | None) -> tuple[str, ...]:
    """Keys of the classes to learn."""
    known = len(images.classes)
    check(classes is None or known > 0, "the images have no classes to choose from: leave out --classes")
    check(
        not isinstance(classes, int) or 1 <= classes <= known,
        f"--classes {classes}: the images have {known} classes; take 1 to {known}, or all",
    )
    return classes_wanted(images, at_most if classes is None else classes)


def _none_of(classes: int | tuple[str, ...] | None, learner: NetworkSettings) -> tuple[str, ...]:
    """No classes, as of a network that takes none."""
    check(
        classes is None, f"{learner.name} takes no classes: leave out --classes, or set num_class_embeds in its config"
    )
    return ()


def _left_out(everything: ImageSet, learned: ImageSet) -> str:
    """Which classes are learned where others are left out, else empty."""
    if learned.classes == everything.classes:
        return ""
    return (
        f"{len(learned.classes)} of {len(everything.classes)} classes, {len(learned):,} of {len(everything):,} "
        f"images: {listed(learned.names, 5)}; --classes all learns all"
    )


def usual() -> ImageTask:
    """The task where no data are named: procedural images."""
    return image_task(("shapes",), ("shapes",))
