"""Where files live and how they are written: paths count from the repository root, and no reader sees half a file."""

import os
import platform
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

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


def take_space(path: str | os.PathLike) -> None:
    """Give a file all its bytes on the disk, not only by name; what is in it stays. Do this before mapping it.

    A mapped file that meets a full disk ends Python with a bus error; here it is an OSError with the two sizes.

    Raises:
        OSError: the disk has no room, or cannot be written.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.truncate(1 << 16)  # a hole
    ...     take_space(file.name)
    ...     os.stat(file.name).st_blocks * 512 >= 1 << 16
    True
    """
    path = Path(path)
    size = path.stat().st_size
    try:
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                while block := file.read(1 << 24):  # what is read from a hole and written back fills it
                    file.seek(-len(block), os.SEEK_CUR)
                    file.write(block)
    except OSError as error:
        said = (
            f"{path} needs {size / 1e9:.2f} GB, its disk has {shutil.disk_usage(path.parent).free / 1e9:.2f} GB free "
            f"({error.strerror}): make room, or take another folder"
        )
        raise OSError(error.errno, said) from error


class InUseError(RuntimeError):
    """Another process, or another thread of this one, works on the same file."""


@contextmanager
def locked(path: str | os.PathLike, wait: bool | float = False) -> Iterator[None]:
    """Let one process at a time work on `path`; the system frees the lock when its holder ends or is killed.

    The lock is the file `.<name>.lock` beside `path`, which holds the holder's process id and host; it is removed at
    the end. What is killed may leave that file behind, and it locks nothing. `path` itself need not exist. To lock a
    folder's contents, name a file inside it that all doors agree on, such as `locked(run_dir / "checkpoint.pt")`.

    Args:
        path: the file that is worked on.
        wait: False refuses at once where another one holds it, True waits for it, a number waits so many seconds.

    Raises:
        InUseError: another one holds the lock; its process id and host are named.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "table.csv"
    >>> with locked(path), locked(path):  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    reidlib.files.InUseError: ...table.csv is in use by process ...
    >>> with locked(path, wait=True):
    ...     _ = path.write_text("1 2 3")
    >>> [file.name for file in Path(folder.name).iterdir()]
    ['table.csv']
    >>> folder.cleanup()
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file, timeout=-1 if wait is True else float(wait))
    try:
        lock.acquire()
    except Timeout as error:
        raise InUseError(f"{path} is in use by {_holder(file)}; wait for its end, or stop it") from error
    native = getattr(lock, "pid", None) is None  # where a file system has no locks, filelock keeps such a note itself
    try:
        if native:
            with suppress(OSError):  # Windows keeps even its holder from writing; the lock holds all the same
                file.write_text(f"{os.getpid()}\n{platform.node()}\n", encoding="utf-8")
        yield
    finally:
        if native:
            with suppress(OSError):  # while it is held: who waits for it sees that it is gone and makes a new one
                file.unlink()
        lock.release()


def _holder(file: Path) -> str:
    """Read who holds a lock."""
    with suppress(OSError, ValueError):
        pid, host = file.read_text(encoding="utf-8").split("\n")[:2]
        return f"process {pid} on {host or 'this machine'}" + (" (this one)" if pid == str(os.getpid()) else "")
    return "another process"
