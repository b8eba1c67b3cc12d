"""The notebook layer: runs, studies, figures, exercises, the papers' tables beside ours."""

from reidlib.course.exercises import check, exercise
from reidlib.course.settings import Settings

__all__ = ["Settings", "check", "exercise"]
