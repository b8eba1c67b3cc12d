"""`runs/index.html`: every run with its executed notebook, its numbers and its figures, readable without a network.

A folder whose files cannot be read (another program's results.json, a damaged one) is a card marked "unreadable".
"""

import html
import json
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reidlib.course.runs import RESULTS, STATUS, write_text

_STYLE = (Path(__file__).parent / "index.css").read_text(encoding="utf-8")  # stands in the page itself


def write_index(output_root: Path, waiting: Sequence[Any] = ()) -> Path:
    """Write `output_root/index.html` from the status.json and results.json of every run, and return its path.

    `waiting` holds the runner's jobs that are still to come.
    """
    folders = {path.parent for name in (STATUS, RESULTS) for path in output_root.glob(f"*/*/{name}")}
    to_come = {job.folder: job for job in waiting}
    entries = [_entry(folder, output_root, to_come.get(folder)) for folder in sorted(folders.union(to_come))]
    head = _line(["notebook", "profile", "status", "time", "open"], "th")
    page = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>reidlib runs</title>'
        f"<style>{_STYLE}</style></head>\n<body><main>",
        "<h1>Runs</h1>",
        f'<p class="soft">{len(entries)} run{"s" * (len(entries) != 1)}, written '
        f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}. Values of mAP, rank-k and mINP are percent. "
        "Click a picture for its full size.</p>",
        f"<section><table>{head}{''.join(row for row, _ in entries)}</table></section>",
        *(card for _, card in entries if card),
        "</main></body></html>\n",
    ]
    text = "\n".join(page).encode(errors="backslashreplace").decode()  # a file's name may be no UTF-8
    return write_text(output_root / "index.html", text)


def format_value(name: str, value: float) -> str:
    """Print a metric: fractions of retrieval as percent, anything else to four digits.

    >>> format_value("ide/mAP (plain AP)", 0.7123), format_value("seconds", 12.34567)
    ('71.2 %', '12.35')
    """
    percent = re.search(r"\b(mAP|mINP|rank-\d+)\b", name)
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _entry(folder: Path, root: Path, job: Any) -> tuple[str, str]:
    """Return a run's row and card; what waits to be run has no card."""
    blank = {"title": folder.parent.name, "parameters": {}, "seconds": None, "cell": "", "error": "", "export": ""}
    try:
        # the runner's status.json tells, or, of a notebook run by hand, its results.json
        status, results = (_read(folder / name) for name in (STATUS, RESULTS))
        run = blank | {"status": "done", **results, "title": folder.parent.name} | status if results else blank | status
        if job and run.get("status") != "done":
            return _row(folder, root, run | {"title": job.name, "status": "waiting", "parameters": job.values}), ""
        return _row(folder, root, run), _card(folder, root, run, results)
    except Exception as error:  # whatever another program or a damaged disk left there: one card, not the page
        words = f"its results.json or status.json is none of reidlib's: {type(error).__name__}: {error}"
        run = blank | {"status": "unreadable", "error": words}
        return _row(folder, root, run), _card(folder, root, run, {})


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _line(cells: Iterable[str], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _address(path: Path, root: Path) -> str:
    return quote(path.relative_to(root).as_posix(), errors="surrogateescape")


def _links(folder: Path, root: Path) -> str:
    files = {f"{folder.parent.name}.html": "read", f"{folder.parent.name}.ipynb": "notebook", RESULTS: RESULTS}
    there = [(folder / name, word) for name, word in files.items() if (folder / name).is_file()]
    return " · ".join(f'<a href="{_address(path, root)}">{word}</a>' for path, word in there)


def _badge(run: dict[str, Any]) -> str:
    words = [run["status"], *(["unreadable"] if run["export"] else [])]
    return " ".join(f'<span class="badge {html.escape(word)}">{html.escape(word)}</span>' for word in words)


def _row(folder: Path, root: Path, run: dict[str, Any]) -> str:
    """Return a run's line of the overview."""
    name = f'<span class="soft">{html.escape(folder.parent.name)}</span>'
    return _line([
        f'<a href="#{_address(folder, root)}">{html.escape(run["title"])}</a><br>{name}',
        html.escape(str(run["parameters"].get("profile", ""))),
        _badge(run),
        "" if run["seconds"] is None else f"{run['seconds']:.0f} s",
        _links(folder, root),
    ])  # fmt: skip


def _card(folder: Path, root: Path, run: dict[str, Any], results: dict[str, Any]) -> str:
    name = folder.relative_to(root).as_posix()
    facts = [name, *(str(results[key]) for key in ("device", "finished") if results.get(key))]
    if results:
        facts.append(re.sub(r"(\w{12})\w*", r"commit \1", results["commit"]))
    told = [f"{run['cell']}: {run['error']}" if run["cell"] else str(run["error"]), run["export"]]
    metrics = [
        _line([html.escape(metric), format_value(metric, entry["value"]), html.escape(entry["rule"])])
        for metric, entry in results.get("metrics", {}).items()
    ]
    head = _line(["metric", "value", "rule"], "th")
    pictures = [(_address(path, root), html.escape(path.stem)) for path in sorted((folder / "figures").glob("*.png"))]
    images = [f'<a href="{url}"><img loading="lazy" alt="" src="{url}">{stem}</a>' for url, stem in pictures]
    parameters = (results.get("parameters") or run["parameters"]).items()
    settings = "".join(_line(html.escape(str(word)) for word in item) for item in parameters)
    parts = [
        f'<section id="{html.escape(name)}"><h2>{html.escape(run["title"])} {_badge(run)}</h2>',
        f'<p class="soft">{html.escape(" · ".join(facts))}<br>{_links(folder, root)}</p>',
        *(f"<pre>{html.escape(words)}</pre>" for words in told if words),
        f'<table class="metrics">{head}{"".join(metrics)}</table>' if metrics else "",
        f'<div class="figures">{"".join(images)}</div>' if images else "",
        f"<details><summary>parameters</summary><table>{settings}</table></details></section>",
    ]
    return "\n".join(filter(None, parts))
