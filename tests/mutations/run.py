r"""Break the library on purpose, one line at a time, and say which breaks the tests do not notice.

`python tests/mutations/run.py` works through `mutations.txt`: each change is made in a temporary copy of the tree, the
tests named beside it and the file's own doctests run with one thread, and what no test notices has survived. Words
choose some of the files: `python tests/mutations/run.py evaluators sampling`. A mutation takes 5 s, so this is no part
of `make test`. A section of `mutations.txt` is

    ## reidlib/losses/adversarial.py | tests/losses/test_adversarial.py
    factor: float = 0.5 => factor: float = 1.0
    x.square() => x.abs() ## equal here, because ...

The text on the left must stand exactly once in the file (`\n` is a line's end), and the change must leave Python that
parses, else the entry is reported as stale. A reason after "##" explains a change that no test can or should notice.
Tests that fail without any change are left out.
"""

import argparse
import ast
import contextlib
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[2]
LISTED = Path(__file__).with_name("mutations.txt")
SHARE = 0.05  # that may survive
COPIED = ("reidlib", "tests")  # the rest of the tree is linked, except the cache of images
PRELOADED = (
    "lpips", "pandas", "PIL.Image", "scipy.linalg", "scipy.sparse", "skimage.metrics", "sklearn.cluster", "torch",
    "torchmetrics.image.fid", "torchvision",
)  # fmt: skip
SECONDS = 600  # of processor time for the tests of one mutation; slower is noticed, a busy machine is not


class Mutation(NamedTuple):
    """One change: in `file`, `old` becomes `new`; `tests` should fail, unless `reason` says why none does."""

    file: str
    tests: tuple[str, ...]
    old: str
    new: str
    reason: str


def read(path: Path = LISTED) -> list[Mutation]:
    """Read the list; a line that cannot be read is an error with its number."""
    found, file, tests = [], "", ()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("## "):
            file, _, named = line[3:].partition(" | ")
            tests = tuple(named.split())
        elif line.strip():
            old, arrow, rest = line.partition(" => ")
            new, _, reason = rest.partition(" ## ")
            if not (arrow and file and tests) or old == new:
                raise SystemExit(f"{path.name}, line {number}: 'old => new' below '## file | tests' is needed: {line}")
            old, new = (text.replace("\\n", "\n") for text in (old, "" if new == "(nothing)" else new))
            found.append(Mutation(file, tests, old, new, reason))
    return found


def parses(text: str) -> bool:
    """Say whether this is Python: a file that cannot be imported proves nothing about its tests."""
    with contextlib.suppress(SyntaxError):
        ast.parse(text)
        return True
    return False


def copy_tree(place: Path) -> None:
    """Make a tree in which files can be changed: sources copied, everything else linked."""
    for name in COPIED:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "data").mkdir()
    for path in [*ROOT.iterdir(), *(ROOT / "data").iterdir()]:
        target = place / path.relative_to(ROOT)
        if not target.exists() and path.name not in (".git", ".cache", ".hypothesis", ".pytest_cache"):
            target.symlink_to(path)


def preload(place: Path) -> None:
    """Import the large packages once; tests run in forks of this process, which import the library."""
    os.environ |= {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(place))
    for name in ("reidlib.torchvision_ops", *PRELOADED):
        importlib.import_module(name)
    quick = {"phases": (hypothesis.Phase.explicit, hypothesis.Phase.generate), "database": None, "deadline": None}
    hypothesis.settings.register_profile("one failure is enough", **quick)  # no shrinking
    hypothesis.settings.load_profile("one failure is enough")
    for name in [name for name in sys.modules if name.partition(".")[0] == "reidlib"]:
        del sys.modules[name]


def run_tests(place: Path, tests: tuple[str, ...], *options: str) -> tuple[int, str]:
    """Run tests in the copy; return pytest's exit code (below 0 where a signal ended it) and its output."""
    log = place / "log.txt"
    child = os.fork()
    if child == 0:
        os.setsid()
        os.chdir(place)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        signal.alarm(20 * SECONDS)  # tests that wait for ever
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC * (stream == 1) | os.O_APPEND), stream)
        os._exit(pytest.main(["-q", "-p", "no:cacheprovider", "-n", "0", "--tb=no", *options, *tests]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what the tests started and left
    return code, log.read_text(encoding="utf-8", errors="replace")


def baseline(place: Path, tests: tuple[str, ...]) -> tuple[list[str], str]:
    """Run tests of the unchanged copy: options that leave out those that fail, and why none can be used."""
    code, output = run_tests(place, tests, "-rfE")
    failing = [line.split()[1] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    options = [f"--deselect={name}" for name in failing]
    if code == 1 and failing:
        code, output = run_tests(place, tests, *options)
    return options, (output[-2000:] or f"exit code {code}") if code else ""


def main() -> int:
    """Run the mutations whose file holds one of the words; return 1 if too many survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of file names; none: all")
    parser.add_argument("--list", action="store_true", help="count the entries and look for stale ones; run nothing")
    arguments = parser.parse_args()
    chosen = [m for m in read() if not arguments.words or any(word in m.file for word in arguments.words)]
    stale, survived, killed, known = [], [], 0, {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        copy_tree(place)
        if not arguments.list:
            preload(place)
        for mutation in chosen:
            path = place / mutation.file
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            changed, times = text.replace(mutation.old, mutation.new), text.count(mutation.old)
            if times != 1 or not parses(changed):
                stale.append(mutation)
                said = f"{times} times" if times != 1 else "no Python afterwards"
                print(f"STALE     {mutation.file}: {said}: {mutation.old!r}", flush=True)
                continue
            if arguments.list:
                continue
            tests = (*mutation.tests, mutation.file)
            if tests not in known:
                known[tests] = baseline(place, tests)
                for option in known[tests][0]:
                    print(f"LEFT OUT  {option.partition('=')[2]} fails without any change", flush=True)
            options, broken = known[tests]
            if broken:
                stale.append(mutation)
                print(f"STALE     {mutation.file}: its tests cannot run:\n{broken}", flush=True)
                continue
            start = time.perf_counter()
            path.write_text(changed, encoding="utf-8")
            code, _ = run_tests(place, tests, "-x", *options)
            path.write_text(text, encoding="utf-8")
            killed += code != 0
            if code == 0:
                survived.append(mutation)
            words = "SURVIVED " if code == 0 else "killed   "
            shown = f"{mutation.old!r} => {mutation.new!r}{mutation.reason and f' ({mutation.reason})'}"
            print(f"{words} {time.perf_counter() - start:4.0f} s  {mutation.file}: {shown}", flush=True)
    unexplained = [m for m in survived if not m.reason]
    ran = killed + len(survived)
    print(f"\n{len(chosen)} mutations, {len(stale)} stale, {ran} ran, {len(survived)} survived", end="")
    print(f" ({len(survived) / max(ran, 1):.1%}; {len(unexplained)} without a reason)")
    for mutation in unexplained:
        print(f"  {mutation.file}: {mutation.old!r} => {mutation.new!r}")
    return int(len(unexplained) > 0 or len(survived) > SHARE * max(ran, 1) or bool(stale))


if __name__ == "__main__":
    sys.exit(main())
