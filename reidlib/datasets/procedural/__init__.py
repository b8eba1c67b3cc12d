"""Procedural people: the embedded data set. Pedestrians rendered by code, with the truth of every pixel."""

from .pictures import Pictures, in_pose, render, same_frame
from .studio import posed_like, studio
from .write import RENDERER_VERSION, make

__all__ = ["RENDERER_VERSION", "Pictures", "in_pose", "make", "render", "same_frame"]
