"""Published claims of cheaper training, judged at equal budgets on several tasks (docs/claims.md)."""

from .catalogue import CLAIMS, Claim, Group, claims_named
from .settings import SETTINGS, Setting

__all__ = ["CLAIMS", "SETTINGS", "Claim", "Group", "Setting", "claims_named"]
