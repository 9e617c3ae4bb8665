"""Data sets of pictures: readers of every common layout, and one decoded form."""

from .description import Description, describe
from .packing import prepare
from .sets import ImageSet, cache_folder, open_images

__all__ = ["Description", "ImageSet", "cache_folder", "describe", "open_images", "prepare"]
