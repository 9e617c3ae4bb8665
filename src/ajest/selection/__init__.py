"""Online data selection: score a super-batch, choose what to train on, decide when to (docs/method.md#scores)."""

from .arm import Arm, Scoring
from .catalogue import ARMS, register_arm
from .keep_list import KeepList, read_keep_list
from .memory import LossMemory
from .normalisation import ranks
from .registry import POLICIES, Policy, importance, inclusion_of, policy, select
from .rules import (
    load_rules,
    register_allocation,
    register_contrast,
    register_course,
    register_density,
    register_normalisation,
    register_pairing,
    register_policy,
    register_trigger,
    register_weight,
)
from .scoring import Scores, score
from .strata import strata_of
from .triggers import Trigger, TriggerState
from .updates import Updates

__all__ = [
    "ARMS",
    "POLICIES",
    "Arm",
    "KeepList",
    "LossMemory",
    "Policy",
    "Scores",
    "Scoring",
    "Trigger",
    "TriggerState",
    "Updates",
    "importance",
    "inclusion_of",
    "load_rules",
    "policy",
    "ranks",
    "read_keep_list",
    "register_allocation",
    "register_arm",
    "register_contrast",
    "register_course",
    "register_density",
    "register_normalisation",
    "register_pairing",
    "register_policy",
    "register_trigger",
    "register_weight",
    "score",
    "select",
    "strata_of",
]
