"""Images, of any size that networks can learn, or latents of them."""

from .setup import image_task
from .task import ImageTask

__all__ = ["ImageTask", "image_task"]
