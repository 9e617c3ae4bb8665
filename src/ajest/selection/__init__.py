"""Online data selection: score a super-batch, choose what to train on, decide when to (docs/method.md#scores)."""

from .registry import POLICIES, Policy, importance, inclusion_of, policy, select
from .scoring import Scores, score
from .triggers import Trigger, TriggerState

__all__ = [
    "POLICIES",
    "Policy",
    "Scores",
    "Trigger",
    "TriggerState",
    "importance",
    "inclusion_of",
    "policy",
    "score",
    "select",
]
