"""`runs/index.html`: every run with its executed notebook, its numbers and its figures, readable without a network.

A folder whose files cannot be read (another program's results.json, a damaged one) is a card marked "unreadable".
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader

from reidlib.course.runs import RESULTS, STATUS, write_text

_FILES = FileSystemLoader(Path(__file__).parent)  # index.html, and index.css, which stands in the page itself
_TEMPLATES = Environment(loader=_FILES, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def write_index(output_root: Path, waiting: Sequence[Any] = ()) -> Path:
    """Write `output_root/index.html` from the status.json and results.json of every run, and return its path.

    `waiting` holds the runner's jobs that are still to come.
    """
    folders = {path.parent for name in (STATUS, RESULTS) for path in output_root.glob(f"*/*/{name}")}
    to_come = {job.folder: job for job in waiting}
    runs = [_read_run(folder, output_root, to_come.get(folder)) for folder in sorted(folders.union(to_come))]
    written = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    page = _TEMPLATES.get_template("index.html").render(runs=runs, written=written)
    text = page.encode(errors="backslashreplace").decode()  # a file's name may be no UTF-8
    return write_text(output_root / "index.html", text)


def format_value(name: str, value: float) -> str:
    """Print a metric: fractions of retrieval as percent, anything else to four digits.

    >>> format_value("ide/mAP (plain AP)", 0.7123), format_value("seconds", 12.34567)
    ('71.2 %', '12.35')
    """
    percent = re.search(r"\b(mAP|mINP|rank-\d+)\b", name)
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _read_run(folder: Path, root: Path, job: Any) -> dict[str, Any]:
    """Return what the page shows of a run, or of a job that waits."""
    blank = {"title": folder.parent.name, "parameters": {}, "seconds": None, "cell": "", "error": "", "export": ""}
    try:
        # the runner's status.json tells, or, of a notebook run by hand, its results.json
        status, results = (_read(folder / name) for name in (STATUS, RESULTS))
        run = blank | {"status": "done", **results, "title": folder.parent.name} | status if results else blank | status
        if job and run.get("status") != "done":
            run |= {"title": job.name, "status": "waiting", "parameters": job.values}
        return _shown(folder, root, run, results)
    except Exception as error:  # whatever another program or a damaged disk left there: one card, not the page
        words = f"its results.json or status.json is none of reidlib's: {type(error).__name__}: {error}"
        return _shown(folder, root, blank | {"status": "unreadable", "error": words}, {})


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _shown(folder: Path, root: Path, run: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return a run's facts by the names that the template knows."""
    name, in_root = folder.parent.name, folder.relative_to(root).as_posix()
    files = {f"{name}.html": "read", f"{name}.ipynb": "notebook", RESULTS: RESULTS}
    facts = [in_root, *(results[key] for key in ("device", "finished") if results.get(key))]
    if results:
        facts.append(re.sub(r"(\w{12})\w*", r"commit \1", results["commit"]))
    metrics = results.get("metrics", {}).items()
    return {
        "name": name,
        "title": run["title"],
        "status": run["status"],
        "folder": in_root,
        "address": _address(folder, root),
        "badges": [run["status"], *(["unreadable"] if run["export"] else [])],
        "profile": run["parameters"].get("profile", ""),
        "time": "" if run["seconds"] is None else f"{run['seconds']:.0f} s",
        "links": [(_address(folder / file, root), word) for file, word in files.items() if (folder / file).is_file()],
        "facts": facts,
        "told": [f"{run['cell']}: {run['error']}" if run["cell"] else run["error"], run["export"]],
        "metrics": [(metric, format_value(metric, entry["value"]), entry["rule"]) for metric, entry in metrics],
        "pictures": [(_address(path, root), path.stem) for path in sorted((folder / "figures").glob("*.png"))],
        "settings": list((results.get("parameters") or run["parameters"]).items()),
    }


def _address(path: Path, root: Path) -> str:
    return quote(path.relative_to(root).as_posix(), errors="surrogateescape")
