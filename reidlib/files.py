"""Where files live and how they are written: paths count from the repository root; nobody sees a half-written file."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def resolve(path: str | os.PathLike) -> Path:
    """Return `path` as an absolute path; a relative one counts from the repository root, never from the working folder.

    Papermill runs notebooks in its caller's folder and JupyterLab in the notebook's own, so the working folder means
    nothing here. `~` is the reader's home.

    >>> resolve("data") == REPOSITORY / "data"
    True
    """
    return REPOSITORY / Path(path).expanduser()


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and rename it to `path` only if the block ends well.

    The temporary name keeps the suffix (some writers choose the format by it) and is unique, so two processes may
    write the same file at once: the last rename wins and every reader sees a whole file. A temporary file that is
    left after an error is removed.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> with atomic_path(Path(folder.name) / "deep" / "numbers.txt") as temporary:
    ...     _ = temporary.write_text("1 2 3")
    >>> (Path(folder.name) / "deep" / "numbers.txt").read_text()
    '1 2 3'
    >>> folder.cleanup()
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
