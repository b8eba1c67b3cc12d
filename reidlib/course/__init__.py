"""The notebook layer: runs, studies, figures, exercises, the papers' tables beside ours."""
