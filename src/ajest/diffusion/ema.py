"""Power-function averages of weights and their post-hoc reconstruction (EDM2, arXiv 2312.02696, section 3)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from ajest.errors import check

#: Stored at each quarter of a run, these widths give any from 0.01 to 0.25 with a residual of at most 1.1 %. Fewer
#: widths take many more snapshots: 0.01, 0.05 and 0.10 at 31 times have 2 %, 0.05 and 0.10 alone at 100 still more.
SPANNING = (0.01, 0.02, 0.05, 0.1, 0.25)
#: The residual of a reconstruction beyond which it is not the width that was asked for.
TOLERANCE = 0.02


@lru_cache
def check_width(width: float) -> None:
    """Raise a UserError unless there is a profile of this relative width."""
    check(0 < width <= 0.28, f"an EMA width must lie in (0, 0.28], not {width}")


def exponent(width: float) -> float:
    """The exponent g of the profile t^g whose relative standard deviation is `width` (EDM2 equation 126).

    The largest real root of g^3 + 7 g^2 + (16 - width^-2) g + (12 - width^-2).

    Raises:
        UserError: a width outside (0, 0.28], where no profile with g >= 0 exists.
    """
    check_width(width)
    inverse = width**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def decay(width: float, t_next: float, t_delta: float) -> float:
    """beta(t) = (1 - dt / t)^(g + 1), the weight of the old average when time moves on to `t_next`."""
    return float((1 - t_delta / t_next) ** (exponent(width) + 1))


class PowerEMA:
    """Several power-function averages of one network at once.

    Each average is a module of its own, in evaluation mode and without gradients, ready to be called. Parameters and
    buffers of floating point are averaged alike, so that a BatchNorm's statistics stay those of the averaged weights'
    time, and positive; other buffers, such as its count of batches, are copied.

    Args:
        network: the network to follow. Time counts from its present state.
        widths: relative widths, e.g. `(0.05, 0.10)`.

    Raises:
        UserError: a width that no average has, or weights of fewer bits than float32, in which an average would stand
            still: what a step adds is less than their last digit.
    """

    def __init__(self, network: nn.Module, widths: Sequence[float]) -> None:
        short = next((p.dtype for p in network.parameters() if p.is_floating_point() and p.itemsize < 4), None)
        check(
            short is None,
            f"averages of {str(short).removeprefix('torch.')} weights stand still: keep the weights in float32, and "
            "compute in fewer bits by torch.autocast",
        )
        for width in widths:
            check_width(width)
        self.network = network
        self.averages = {w: copy.deepcopy(network).eval().requires_grad_(False) for w in widths}
        # To look for the weights of a small network takes longer than to average them.
        self._parameters = [list(module.parameters()) for module in (network, *self.averages.values())]
        self._has_buffers = any(True for _ in network.buffers())

    @torch.no_grad()
    def update(self, t_next: float, t_delta: float = 1.0) -> None:
        """Take the network's present weights in, as time (steps or examples) moves on by `t_delta` to `t_next`."""
        (live, counters), *averages = map(self._parts, (self.network, *self.averages.values()), self._parameters)
        for width, (mine, copies) in zip(self.averages, averages, strict=True):
            torch._foreach_lerp_(mine, live, 1 - decay(width, t_next, t_delta))
            for copied, counter in zip(copies, counters, strict=True):
                copied.copy_(counter)

    def _parts(self, network: nn.Module, parameters: list[nn.Parameter]) -> tuple[list[Tensor], list[Tensor]]:
        """(parameters and buffers of floating point, other buffers) of a network."""
        buffers = list(network.buffers()) if self._has_buffers else []
        floating = [b for b in buffers if b.is_floating_point()]
        return [*parameters, *floating], [b for b in buffers if not b.is_floating_point()]

    def __getitem__(self, width: float) -> nn.Module:
        return self.averages[width]

    def state_dict(self) -> dict[str, Tensor]:
        """All averages as one flat dictionary with keys `WIDTH/NAME`."""
        return {f"{w}/{k}": v for w, m in self.averages.items() for k, v in m.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        for width, module in self.averages.items():
            module.load_state_dict(average_of(state, width))


def average_of(state: Mapping[str, Tensor], width: float) -> dict[str, Tensor]:
    """The weights of one width out of `PowerEMA.state_dict()`."""
    prefix = f"{width}/"
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def profile_product(t_a: np.ndarray, g_a: np.ndarray, t_b: np.ndarray, g_b: np.ndarray) -> np.ndarray:
    """Inner product of two averaging profiles that end at t_a and t_b (EDM2 algorithm 3)."""
    q = np.where(t_a < t_b, g_b, -g_a)
    ratio = (t_a / t_b) ** q
    return (g_a + 1) * (g_b + 1) * ratio / ((g_a + g_b + 1) * np.maximum(t_a, t_b))


def posthoc_coefficients(times: Sequence[float], widths: Sequence[float], time: float, width: float) -> np.ndarray:
    """Coefficients that combine stored averages into one of any width (EDM2 algorithm 3), summing to 1.

    Args:
        times: when each stored average was taken (any unit, positive).
        widths: the relative width of each stored average.
        time: the end of the wanted average, usually the latest of `times`.
        width: the wanted relative width.

    Raises:
        ValueError: nothing stored, or an end beyond the last stored average.
    """
    gram, wanted, _ = _products(times, widths, time, width)
    solution = np.linalg.solve(gram, wanted)
    return solution / solution.sum()


def posthoc_residual(times: Sequence[float], widths: Sequence[float], time: float, width: float) -> float:
    """How far `posthoc_coefficients` miss the wanted average: the relative L2 error of its averaging profile, 0 to
    about 1 and more.

    With G the inner products of the stored profiles (EDM2 algorithm 3), b theirs with the wanted profile p, and c the
    coefficients, `|sum_i c_i p_i - p| / |p| = sqrt(1 - 2 c.b / |p|^2 + c.G.c / |p|^2)`.

    Args, raises: as for `posthoc_coefficients`.
    """
    gram, wanted, square = _products(times, widths, time, width)
    c = posthoc_coefficients(times, widths, time, width)
    return float(np.sqrt(max(0.0, 1 + (c @ gram @ c - 2 * c @ wanted) / square)))


def _products(
    times: Sequence[float], widths: Sequence[float], time: float, width: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Inner products of the stored profiles with each other, with the wanted one, and of that with itself."""
    if len(times) == 0 or len(times) != len(widths):
        raise ValueError("post-hoc EMA needs at least one stored average, and as many times as widths")
    if time > max(times):
        raise ValueError(f"the wanted EMA ends at {time}, after the last stored average at {max(times)}")
    t = np.asarray(times, dtype=np.float64)
    g = np.array([exponent(w) for w in widths])
    gram = profile_product(t[:, None], g[:, None], t[None, :], g[None, :])
    end, power = np.array(float(time)), np.array(exponent(width))
    wanted = profile_product(t, g, end, power)
    return gram, wanted, float(profile_product(end, power, end, power))


def reconstruct(
    stored: Iterable[Mapping[str, Tensor]], coefficients: Sequence[float] | np.ndarray
) -> dict[str, Tensor]:
    """The weighted sum of stored weights, summed in float64 and returned in their own type; of what is not of floating
    point, such as a count of batches, the last.

    `stored` may be a generator, so that only one set of weights is in memory at a time.
    """
    total: dict[str, Tensor] = {}
    types: dict[str, torch.dtype] = {}
    for weights, c in zip(stored, coefficients, strict=True):
        for name, weight in weights.items():
            if not weight.is_floating_point():
                total[name], types[name] = weight, weight.dtype
                continue
            if name not in total:
                total[name], types[name] = torch.zeros_like(weight, dtype=torch.float64), weight.dtype
            total[name].add_(weight.double(), alpha=float(c))
    return {k: v.to(types[k]) for k, v in total.items()}
