"""Data sets of pictures: readers of every common layout, and one decoded form."""

from .cache import cache_folder
from .description import Description, describe
from .packing import prepare
from .sets import ImageSet, open_images

__all__ = ["Description", "ImageSet", "cache_folder", "describe", "open_images", "prepare"]
