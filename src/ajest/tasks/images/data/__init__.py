"""Data sets of images: readers of every common layout, and one decoded form."""

from .cache import cache_folder
from .description import Description, describe
from .packing import prepare
from .parts import is_keyword
from .sets import ImageSet, open_images
from .sizes import sizes_of
from .subsets import balanced, class_number, classes_wanted, folded, of_classes, spread_order

__all__ = [
    "Description",
    "ImageSet",
    "balanced",
    "cache_folder",
    "class_number",
    "classes_wanted",
    "describe",
    "folded",
    "is_keyword",
    "of_classes",
    "open_images",
    "prepare",
    "sizes_of",
    "spread_order",
]
