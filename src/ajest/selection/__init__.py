"""Online data selection: score a super-batch, choose what to train on, decide when to (METHOD 3)."""

from .policies import POLICIES, Policy, policy, select
from .scoring import Scores, score
from .triggers import Trigger, TriggerState

__all__ = ["POLICIES", "Policy", "Scores", "Trigger", "TriggerState", "policy", "score", "select"]
