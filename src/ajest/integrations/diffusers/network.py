"""A model of diffusers as a network of ajest."""

from __future__ import annotations

import json
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ajest.diffusion.objectives import Preconditioned
from ajest.errors import UserError, check, listed

from .prediction import prediction_of

#: Settings that tell how many numbers a token of text has, the first that is there.
_TOKEN_WIDTHS = ("caption_channels", "joint_attention_dim", "cross_attention_dim", "encoder_hid_dim")


@dataclass(frozen=True)
class Conditions:
    """How a model of diffusers is told the class.

    Attributes:
        name: of its class.
        classes: of the data; 0 without labels.
        rows: of the model's table of classes; 0 if it has none.
        none: row that stands for no label; None if there is none.
        width: of a token of text, in whose place one token stands for the class (1 at its number, 0 elsewhere, and
            all 0 for no label); 0 where no text is asked for.
        embedding: shape of what it is told in the place of a class: (d,) for one token of d numbers, or (l, d).
    """

    name: str
    classes: int
    rows: int
    none: int | None
    width: int
    embedding: tuple[int, ...] = ()

    @property
    def takes_labels(self) -> bool:
        return self.rows > 0 or self.width > 0

    def check(self, dropout: float = 0.0) -> None:
        """Raise a UserError unless the model can be told these classes, and none where labels are dropped."""
        if self.embedding:
            takes = f"tokens of {self.width} numbers" if self.width else "no tokens"
            check(
                self.width == self.embedding[-1] and (self.rows == 0 or self.none is not None),
                f"{self.name} takes {takes}{' and a class' if self.rows and self.none is None else ''}, and the "
                f"embeddings have {self.embedding[-1]}: set cross_attention_dim (of a transformer its like) in its "
                "config, or give other embeddings",
            )
            return
        check(
            self.rows == 0 or self.rows >= self.classes,
            f"{self.name} knows {self.rows} classes, and the data have {self.classes}: set num_class_embeds (of a DiT "
            f"num_embeds_ada_norm) in its config to {self.classes + 1}, or name fewer --classes",
        )
        check(
            self.width == 0 or self.width >= self.classes,
            f"{self.name} takes tokens of {self.width} numbers, too few to tell {self.classes} classes: name fewer "
            "--classes",
        )
        check(
            self.rows == 0 or self.none is not None or (dropout == 0 and self.classes > 0),
            f"{self.name} has a class for each of {self.rows} labels and none for no label: set num_class_embeds in "
            f"its config to {self.rows + 1}",
        )

    def told(self, label: Tensor | None, x: Tensor) -> dict[str, Tensor]:
        """What the model is given beside x and t for labels of shape (n,), int64, -1 for none; or for embeddings, of
        which there are none where they are zero.

        Raises:
            UserError: no label, and the model must have one.
        """
        given: dict[str, Tensor] = {}
        if self.embedding:
            tokens = x.new_zeros(len(x), *self.embedding) if label is None else label.to(x.dtype)
            given["encoder_hidden_states"] = tokens if tokens.dim() == 3 else tokens[:, None]
            if self.none is not None:
                given["class_labels"] = torch.full((len(x),), self.none, device=x.device)
            return given
        label = torch.full((len(x),), -1, device=x.device) if label is None else label
        if self.rows:
            if self.none is None and bool((label < 0).any()):
                raise UserError(f"{self.name} cannot answer without a label: it has no class for none")
            given["class_labels"] = label if self.none is None else torch.where(label < 0, self.none, label)
        if self.width:
            token = functional.one_hot(label + 1, self.width + 1)[:, None, 1:]
            given["encoder_hidden_states"] = token.to(x.dtype)
        return given


def conditions_of(kind: Any, config: dict[str, Any], classes: int, embedding: tuple[int, ...] = ()) -> Conditions:
    """How a class of models with this config is told one of so many classes, or embeddings of a shape.

    Raises:
        UserError: it asks for more than images, times, classes and tokens.
    """
    name = kind.__name__
    _, first, *others = signature(kind.forward).parameters.values()
    known = {"timestep", "class_labels", "encoder_hidden_states"}
    names = {p.name for p in others}
    needed = {p.name for p in others if p.default is Parameter.empty and p.kind is Parameter.POSITIONAL_OR_KEYWORD}
    needed |= names & {"pooled_projections"}  # which has a default that fails
    check(
        "timestep" in names and needed <= known and first.name in ("sample", "hidden_states"),
        f"{name} is asked with {listed([first.name, *sorted(needed)])}: ajest can give an image, a timestep, "
        "class_labels and encoder_hidden_states",
    )
    embeds, ada = config.get("num_class_embeds"), config.get("num_embeds_ada_norm")
    rows, none = 0, None
    if "class_labels" in names and embeds:
        rows, none = int(embeds), int(embeds) - 1 if embeds > classes else None
    elif "class_labels" in names and ada and "encoder_hidden_states" not in names:
        rows, none = int(ada), int(ada)  # its table has one row more
    elif "class_labels" in names and config.get("class_embed_type"):
        raise UserError(f"{name} embeds classes as {config['class_embed_type']}: set num_class_embeds instead")
    width = 0
    if "encoder_hidden_states" in needed:
        widths = (config.get(key) for key in _TOKEN_WIDTHS)
        width = next((int(w) for w in widths if isinstance(w, int)), 0)
        check(width > 0, f"{name} does not say how wide a token is: set {' or '.join(_TOKEN_WIDTHS)} in its config")
    return Conditions(name, classes, rows, none, width, embedding)


class Asked(nn.Module):
    """A model of diffusers as a raw network of `ajest.diffusion.objectives`, called with z, times and labels.

    Args:
        model: of diffusers.
        conditions: how it is told the class.
        precision: in which it computes (autocast); weights stay in float32.
    """

    def __init__(self, model: nn.Module, conditions: Conditions, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.conditions, self.precision = model, conditions, precision

    def forward(self, z: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """The prediction, of the shape of `z`. What a model says of its own variance, in further channels, is not
        looked at."""
        told = self.conditions.told(label, z)
        with torch.autocast(z.device.type, self.precision, enabled=self.precision != torch.float32):
            answer: Tensor = self.model(z, timestep=time, return_dict=False, **told)[0]
        return answer[:, : z.shape[1]]


class DiffusersNetwork(Preconditioned):
    """A denoiser of a model of diffusers, see `ajest.Network`.

    Args:
        model: of diffusers.
        scheduler: config of its scheduler, JSON, which says how it is read.
        classes: of the data; 0 without labels.
        precision: in which it computes (autocast); weights stay in float32.
        embedding: shape of what it is told in the place of a class; () for a class.

    Raises:
        UserError: the model cannot be read as a denoiser, or asks for what ajest has not.
    """

    def __init__(
        self,
        model: nn.Module,
        scheduler: str,
        classes: int = 0,
        precision: torch.dtype = torch.float32,
        embedding: tuple[int, ...] = (),
    ) -> None:
        found = prediction_of(json.loads(scheduler))
        config: Any = model.config
        asked = Asked(model, conditions_of(type(model), dict(config), classes, embedding), precision)
        super().__init__(asked, found.parametrisation, found.process)
        self.scheduler = scheduler

    @property
    def raw(self) -> nn.Module:
        """The model of diffusers, which is what may be compiled."""
        asked: Any = self.network
        return asked.model

    @property
    def conditions(self) -> Conditions:
        """How the model is told the class."""
        asked: Any = self.network
        return asked.conditions

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """The denoised x in float32, shape of `x`; `sigma` has shape (n,)."""
        return super().forward(x.float(), sigma.float(), label)


def denoiser_of(
    model: nn.Module, scheduler: Any, classes: int = 0, embedding: tuple[int, ...] = ()
) -> DiffusersNetwork:
    """A model of diffusers that is there already, such as by `from_pretrained`, as a denoiser D(x, sigma, label).

    Args:
        model: a model that takes an image, a timestep, and at most class labels or tokens. It is asked and not changed.
        scheduler: of the class that it was trained with.
        classes: how many labels it is asked with, int64 of shape (n,), -1 for none; 0 for no labels.
        embedding: shape (l, d) of the tokens that it is asked with in the place of a label, of shape (n, l, d), such as
            those of a text; () for none.

    Raises:
        UserError: the model asks for labels or tokens, and neither is named; or see `DiffusersNetwork`.
    """
    config = dict(scheduler.config) | {"_class_name": type(scheduler).__name__}
    network = DiffusersNetwork(model, json.dumps(config, default=list), classes, embedding=embedding)
    asks = network.conditions
    check(
        classes > 0 or bool(embedding) or not asks.takes_labels,
        f"{asks.name} is asked with "
        + (f"tokens: say embedding=(how many, {asks.width})" if asks.width else f"one of {asks.rows} labels")
        + (", or classes=, how many labels there are" if asks.width else ": say classes=, how many of them are real"),
    )
    asks.check()
    return network
