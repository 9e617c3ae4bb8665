"""Models, schedulers, autoencoders and guiders of diffusers (extra `diffusers`).

What a task keeps of them is plain JSON: only building a network or an autoencoder imports the library, and the module
`guider`, which derives from it.
"""

from .export import export
from .model import DiffusersModel, read_model
from .network import DiffusersNetwork, denoiser_of

__all__ = ["DiffusersModel", "DiffusersNetwork", "denoiser_of", "export", "read_model"]
