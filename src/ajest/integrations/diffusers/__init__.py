"""Models, schedulers, autoencoders and guiders of diffusers (extra `diffusers`).

What a task keeps of them is plain JSON: only building a network or an autoencoder imports the library, and the guider,
which derives from it.
"""

from typing import TYPE_CHECKING, Any

from .export import export
from .model import DiffusersModel, read_model
from .network import DiffusersNetwork, denoiser_of

if TYPE_CHECKING:
    from .guider import GuideNetworkGuidance

__all__ = ["DiffusersModel", "DiffusersNetwork", "GuideNetworkGuidance", "denoiser_of", "export", "read_model"]


def __getattr__(name: str) -> Any:
    """The guider, imported when it is asked for: its base class is diffusers' own."""
    if name != "GuideNetworkGuidance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .guider import GuideNetworkGuidance

    return GuideNetworkGuidance
