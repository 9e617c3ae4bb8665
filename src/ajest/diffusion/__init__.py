"""Diffusion models: noised batches, objectives and losses, sampling, guidance, averages of weights."""

from .batch import Batch, Source
from .conditions import LearnedNull, drop, is_none, without
from .denoising import Denoiser, LogNormal, per_example_loss
from .ema import PowerEMA
from .flow import flow_times, sample_flow
from .guidance import Guide, autoguide, guided
from .network import Network
from .noising import DENSITIES, WEIGHTS, Levels, Noising, Weighting
from .objectives import (
    EDM,
    PARAMETRISATIONS,
    CosineVP,
    DiscreteVP,
    LinearVP,
    Parametrisation,
    Preconditioned,
    Process,
    RectifiedFlow,
    SeenAs,
    VarianceExploding,
    as_denoiser,
    as_network,
)
from .sampling import sample, sigma_schedule
from .solvers import Solver

__all__ = [
    "DENSITIES",
    "EDM",
    "PARAMETRISATIONS",
    "WEIGHTS",
    "Batch",
    "CosineVP",
    "Denoiser",
    "DiscreteVP",
    "Guide",
    "LearnedNull",
    "Levels",
    "LinearVP",
    "LogNormal",
    "Network",
    "Noising",
    "Parametrisation",
    "PowerEMA",
    "Preconditioned",
    "Process",
    "RectifiedFlow",
    "SeenAs",
    "Solver",
    "Source",
    "VarianceExploding",
    "Weighting",
    "as_denoiser",
    "as_network",
    "autoguide",
    "drop",
    "flow_times",
    "guided",
    "is_none",
    "per_example_loss",
    "sample",
    "sample_flow",
    "sigma_schedule",
    "without",
]
