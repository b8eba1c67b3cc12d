"""Procedural people: the embedded data set. Pedestrians rendered by code, with the truth of every pixel."""

from .outfits import studio
from .pictures import Pictures, in_pose, render, same_frame
from .write import RENDERER_VERSION, make

__all__ = ["RENDERER_VERSION", "Pictures", "in_pose", "make", "render", "same_frame", "studio"]
