"""Procedural people: the embedded data set. Pedestrians rendered by code, with the truth of every pixel."""

from .write import RENDERER_VERSION, make

__all__ = ["RENDERER_VERSION", "make"]
