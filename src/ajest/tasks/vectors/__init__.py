"""Vectors: any array of N rows and d columns, and a few made-up sets that need no file."""

from .setup import vectors_task
from .task import VectorsTask

__all__ = ["VectorsTask", "vectors_task"]
