"""The tasks that there are."""

from __future__ import annotations

from ajest.tasks.images.task import ImageTask
from ajest.tasks.tree.task import TreeTask

#: A union so that a config can be read back from JSON.
AnyTask = TreeTask | ImageTask
