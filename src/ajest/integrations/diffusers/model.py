"""A model of diffusers as part of a task's settings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ajest.errors import UserError, check
from ajest.runtime.seeding import drawing_from

from .loading import PARTS, class_named, made, read_json_object
from .network import Conditions, DiffusersNetwork, conditions_of
from .prediction import PREDICTED, Predicted, prediction_of


@dataclass(frozen=True)
class DiffusersModel:
    """A model of diffusers by its config, with weights that follow from a seed. Made by `read_model`.

    Attributes:
        digest: of both configs, which is what identifies it.
        config: of the model, JSON.
        scheduler: config of the scheduler, JSON, which tells what the model predicts and at which times.
    """

    digest: str
    config: str = field(compare=False, repr=False)
    scheduler: str = field(compare=False, repr=False)

    def __post_init__(self) -> None:
        check(self.digest == _digest(self.config, self.scheduler), f"{self.name}: its config was changed by hand")

    @property
    def name(self) -> str:
        """The class of diffusers."""
        return str(json.loads(self.config)["_class_name"])

    @property
    def labelled(self) -> bool:
        """Whether it takes labels at all."""
        return self._conditions(0).takes_labels

    @property
    def sigma_max(self) -> float:
        """The highest noise level that it has a time for."""
        return prediction_of(json.loads(self.scheduler)).sigma_max

    def fit(
        self,
        resolution: int,
        channels: int = 3,
        classes: int = 0,
        dropout: float = 0.0,
        embedding: tuple[int, ...] = (),
    ) -> None:
        """Make sure, without building it, that the model can learn images of this kind.

        Args:
            resolution: their height and width.
            channels: of them.
            classes: how many; 0 without labels.
            dropout: share of examples that lose their label.
            embedding: shape of what it is told in the place of a class; () for a class.

        Raises:
            UserError: a config of another resolution, of other channels, or of too few classes.
        """
        config = json.loads(self.config)
        size = config.get("sample_size")
        size = size[0] if isinstance(size, list) else size
        check(
            size in (None, resolution),
            f"{self.name} is for images of {size} x {size}, not {resolution} x {resolution}: set sample_size in its "
            f"config to {resolution}, or name --resolution {size}",
        )
        blocks = config.get("block_out_channels", ())
        unit = 1 << max(0, len(blocks) - 1)
        check(resolution % unit == 0, f"{self.name} needs a resolution that {unit} divides, not {resolution}")
        own = config.get("in_channels", channels)
        check(
            own == channels and config.get("out_channels") in (None, channels, 2 * channels),
            f"{self.name} has {own} channels in and {config.get('out_channels') or own} out, and the data have "
            f"{channels}: set in_channels and out_channels in its config to {channels}",
        )
        self._conditions(classes, embedding).check(dropout)

    def denoiser(
        self,
        resolution: int,
        classes: int,
        sigma_data: float = 0.5,
        precision: str = "float32",
        generator: torch.Generator | None = None,
        channels: int = 3,
        embedding: tuple[int, ...] = (),
        objective: str = "edm",
    ) -> DiffusersNetwork:
        """The model as a network, initialised from `generator`; its scheduler says how it is scaled and what it
        predicts, not `sigma_data` and `objective`.

        Raises:
            UserError: see `fit`; or the class cannot be made of the config.
        """
        self.fit(resolution, channels, classes, embedding=embedding)
        stream = torch.Generator().manual_seed(0) if generator is None else generator
        with drawing_from(stream):
            model = made(class_named(self.name, "ModelMixin"), json.loads(self.config))
        embeddings: list[Any] = [m for m in model.modules() if type(m).__name__ == "LabelEmbedding"]
        for embedding_of in embeddings:  # which labels are dropped is a matter of the batch
            embedding_of.dropout_prob = 0.0
        return DiffusersNetwork(model, self.scheduler, classes, getattr(torch, precision), embedding)

    def _conditions(self, classes: int, embedding: tuple[int, ...] = ()) -> Conditions:
        return conditions_of(class_named(self.name, "ModelMixin"), json.loads(self.config), classes, embedding)


def read_model(path: str | Path, predicted: Predicted | None = None) -> DiffusersModel:
    """The model of a config file or of a folder that `from_pretrained` reads.

    The scheduler's config lies beside the model's, as `scheduler_config.json`, or in the folder `scheduler` of a
    pipeline. Weights are not read: networks of a bench begin anew, from each seed.

    Args:
        path: `config.json`; a folder that holds one; or that of a pipeline with `unet` or `transformer`.
        predicted: what the model predicts, in place of what the scheduler's config says, or without one.

    Raises:
        UserError: no such file, one of another form, a class that is not of diffusers or asks for more than ajest has.
    """
    file = _config_file(Path(path))
    config = {k: v for k, v in read_json_object(file).items() if k not in ("_diffusers_version", "_name_or_path")}
    check("_class_name" in config, f"{file} names no class: put in its _class_name, such as UNet2DModel")
    texts = [json.dumps(part, sort_keys=True) for part in (config, _scheduler(file, predicted))]
    model = DiffusersModel(_digest(*texts), *texts)
    _ = model.labelled, model.sigma_max  # which look at both configs
    return model


def _config_file(path: Path) -> Path:
    if path.is_file():
        return path
    check(
        path.is_dir(),
        f"there is no file or folder {path}: name a config.json, or a folder that from_pretrained reads (one of a hub "
        "is downloaded first: hf download NAME --local-dir DIR)",
    )
    places = [path / "config.json", *(path / part / "config.json" for part in PARTS)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(f"{path} holds no model of diffusers: config.json, {' and '.join(PARTS)} are not in it")
    return found


def _scheduler(file: Path, predicted: Predicted | None) -> dict[str, Any]:
    """The config of the scheduler beside a model's config, with what is predicted in place of its own."""
    name = "scheduler_config.json"
    places = [file.parent / name, file.parent / "scheduler" / name, file.parent.parent / "scheduler" / name]
    found = next((place for place in places if place.is_file()), None)
    scheduler: dict[str, Any] = {}
    if found is not None:
        scheduler = {k: v for k, v in read_json_object(found).items() if k != "_diffusers_version"}
        check("_class_name" in scheduler, f"{found} names no class: put in its _class_name, such as DDPMScheduler")
    elif predicted is None:
        raise UserError(
            f"nothing says what the model of {file} predicts: put the scheduler's {name} beside it, or say it with "
            f"--prediction {{{','.join(PREDICTED)}}}"
        )
    if predicted is None:
        return scheduler
    straight = str(scheduler.get("_class_name", "")).startswith("FlowMatch")
    if predicted == "flow":
        return scheduler if straight else {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    own = {"_class_name": "DDPMScheduler", "clip_sample": False} if straight or not scheduler else scheduler
    return own | {"prediction_type": predicted}


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
