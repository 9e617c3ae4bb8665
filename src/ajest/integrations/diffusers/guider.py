"""Autoguidance by a second network, as a guider of diffusers' modular pipelines.

Their own AutoGuidance weakens the guided network itself, by leaving out layers; here another model guides, as in the
paper (arXiv 2406.02507). Importing this module imports diffusers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers.guiders.guider_utils import BaseGuidance, GuiderOutput
from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

_HOOK = "ajest_guide_network"


_Base: Any = BaseGuidance


class GuideNetworkGuidance(_Base):
    """`guide + weight (main - guide)` of what both predict: of one x and noise level that is autoguidance, whatever
    they predict, if both predict the same.

    Args:
        guide: the model that is steered away from: smaller or less trained, asked just as the main one is.
        weight: 1 is no guidance.
        start: share of the steps from which on it guides.
        stop: share of the steps up to which it guides.
    """

    _input_predictions: ClassVar[list[str]] = ["pred_cond", "pred_uncond"]

    def __init__(self, guide: nn.Module, weight: float = 2.0, start: float = 0.0, stop: float = 1.0) -> None:
        super().__init__(start, stop)
        self.guide, self.weight = guide, weight

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Before each of a step's passes: in the second the guide answers in the place of the main model."""
        self._count_prepared += 1
        if not self.is_conditional:
            HookRegistry.check_if_exists_or_initialize(denoiser).register_hook(_Answer(self.guide), name=_HOOK)

    def cleanup_models(self, denoiser: nn.Module) -> None:
        """After each pass: the main model answers for itself again."""
        if not self.is_conditional:
            HookRegistry.check_if_exists_or_initialize(denoiser).remove_hook(_HOOK, recurse=False)

    def prepare_inputs(self, data: dict[str, Any]) -> list[Any]:
        """The same inputs for both models."""
        return [self._prepare_batch(data, 0, name) for name in self._input_predictions[: self.num_conditions]]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        """The same inputs for both models, from the state of a pipeline's block."""
        names = self._input_predictions[: self.num_conditions]
        return [self._prepare_batch_from_block_state(input_fields, data, 0, name) for name in names]

    def forward(self, pred_cond: Tensor, pred_uncond: Tensor | None = None) -> Any:
        """What is taken for the main model's prediction, from that and the guide's."""
        pred = pred_cond if pred_uncond is None else torch.lerp(pred_uncond, pred_cond, self.weight)
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    @property
    def is_conditional(self) -> bool:
        """Whether the main model answers now."""
        return self._count_prepared == 1

    @property
    def num_conditions(self) -> int:
        """Passes of the step: 2 where the guide is asked."""
        if not self._enabled or self.weight == 1:
            return 1
        if self._num_inference_steps is None:
            return 2
        first, last = (int(share * self._num_inference_steps) for share in (self._start, self._stop))
        return 2 if first <= self._step < last else 1


class _Answer(ModelHook):
    """Another model in the place of the one that is hooked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """The other model's answer."""
        return self.model(*args, **kwargs)
