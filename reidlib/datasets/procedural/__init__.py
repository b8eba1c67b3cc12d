"""Procedural people: the embedded data set. Pedestrians rendered by code, with the truth of every pixel."""

from .pictures import Pictures, render, same_frame
from .write import RENDERER_VERSION, make

__all__ = ["RENDERER_VERSION", "Pictures", "make", "render", "same_frame"]
