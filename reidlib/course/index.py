"""`runs/index.html`: every run with its executed notebook, its numbers and its figures, readable without a network.

A folder whose files cannot be read (another program's results.json, a damaged one) is a card marked "unreadable".
"""

import html
import json
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reidlib.files import atomic_path

_STYLE = (Path(__file__).parent / "index.css").read_text(encoding="utf-8")  # stands in the page itself


def write_index(output_root: Path, waiting: Sequence[Any] = ()) -> Path:
    """Write `output_root/index.html` from the status.json and results.json of every run, and return its path.

    `waiting` holds the runner's jobs that are still to come.
    """
    folders = {path.parent for name in ("status.json", "results.json") for path in output_root.glob(f"*/*/{name}")}
    to_come = {job.folder: job for job in waiting}
    entries = [_entry(folder, output_root, folder in to_come) for folder in sorted(folders)]
    entries += [
        (_row(_run(folder, title=job.name, status="waiting", parameters=job.values), output_root), "")
        for folder, job in to_come.items()
        if folder not in folders
    ]
    rows, cards = zip(*entries, strict=True) if entries else ((), ())
    head = "<tr><th>notebook</th><th>profile</th><th>status</th><th>time</th><th>open</th></tr>"
    body = [
        "<h1>Runs</h1>",
        f'<p class="soft">{len(rows)} run{"s" * (len(rows) != 1)}, written '
        f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}. Values of mAP, rank-k and mINP are percent. "
        "Click a picture for its full size.</p>",
        f"<section><table>{head}{''.join(rows)}</table></section>",
        *cards,
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>reidlib runs</title>'
        f"<style>{_STYLE}</style></head>\n<body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )
    path = output_root / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def format_value(name: str, value: float) -> str:
    """Print a metric: fractions of retrieval as percent, anything else to four digits.

    >>> format_value("ide/mAP (plain AP)", 0.7123), format_value("seconds", 12.34567)
    ('71.2 %', '12.35')
    """
    percent = re.search(r"\b(mAP|mINP|rank-\d+)\b", name)
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _run(folder: Path, **facts: Any) -> dict[str, Any]:
    return {"seconds": None, "error": "", "cell": "", "export": "", "results": {}, **facts, "folder": folder}


def _entry(folder: Path, root: Path, waits: bool) -> tuple[str, str]:
    """Return a run's row and card."""
    try:
        run = _read(folder)
        if waits and run["status"] != "done":
            return _row(run | {"status": "waiting"}, root), ""
        return _row(run, root), _card(run, root)
    except Exception as error:  # whatever another program or a damaged disk left there: one card, not the page
        words = f"its results.json or status.json is none of reidlib's: {type(error).__name__}: {error}"
        run = _run(folder, title=folder.parent.name, status="unreadable", parameters={}, error=words)
        return _row(run, root), _card(run, root)


def _read(folder: Path) -> dict[str, Any]:
    """Read a run by the runner's status.json, or, of a notebook run by hand, its results.json."""
    paths = folder / "results.json", folder / "status.json"
    results, status = (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {} for path in paths)
    run = {"seconds": results.get("seconds")}
    if results:
        run |= {"status": "done", "title": folder.parent.name, "parameters": results["parameters"]}
    return _run(folder, **run | status | {"results": results})


def _address(path: Path, root: Path) -> str:
    return quote(path.relative_to(root).as_posix(), errors="surrogateescape")


def _link(path: Path, root: Path, text: str) -> str:
    return f'<a href="{_address(path, root)}">{text}</a>' if path.is_file() else ""


def _links(run: dict[str, Any], root: Path) -> str:
    folder, name = run["folder"], run["folder"].parent.name
    links = [
        _link(folder / f"{name}.html", root, "read"),
        _link(folder / f"{name}.ipynb", root, "notebook"),
        _link(folder / "results.json", root, "results.json"),
    ]
    return " · ".join(filter(None, links))


def _badge(run: dict[str, Any]) -> str:
    words = [run["status"], *(["unreadable"] if run["export"] else [])]
    return " ".join(f'<span class="badge {html.escape(word)}">{html.escape(word)}</span>' for word in words)


def _row(run: dict[str, Any], root: Path) -> str:
    """Return a run's line of the overview."""
    run_name = f"{run['folder'].parent.name}/{run['folder'].name}"
    cells = [
        f'<a href="#{quote(run_name, errors="surrogateescape")}">{html.escape(run["title"])}</a><br>'
        f'<span class="soft">{html.escape(run["folder"].parent.name)}</span>',
        html.escape(str(run["parameters"].get("profile", ""))),
        _badge(run),
        "" if run["seconds"] is None else f"{run['seconds']:.0f} s",
        _links(run, root),
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _card(run: dict[str, Any], root: Path) -> str:
    folder, results = run["folder"], run["results"]
    name = f"{folder.parent.name}/{folder.name}"
    parts = [f'<section id="{html.escape(name)}"><h2>{html.escape(run["title"])} {_badge(run)}</h2>']
    facts = [str(results[key]) for key in ("device", "finished") if results.get(key)]
    if results:
        facts.append(re.sub(r"(\w{12})\w*", r"commit \1", results["commit"]))
    parts.append(f'<p class="soft">{html.escape(" · ".join([name, *facts]))}<br>{_links(run, root)}</p>')
    where = f"{run['cell']}: " if run["cell"] else ""
    told = [where + str(run["error"])] if run["error"] else []
    parts += [f"<pre>{html.escape(words)}</pre>" for words in (*told, run["export"]) if words]
    metrics = results.get("metrics", {})
    if metrics:
        rows = "".join(
            f'<tr><td>{html.escape(metric)}</td><td class="number">{format_value(metric, entry["value"])}</td>'
            f'<td class="soft">{html.escape(entry["rule"])}</td></tr>'
            for metric, entry in metrics.items()
        )
        parts.append(f'<table><tr><th>metric</th><th class="number">value</th><th>rule</th></tr>{rows}</table>')
    pictures = sorted((folder / "figures").glob("*.png"))
    images = "".join(
        _link(picture, root, f'<img loading="lazy" alt="" src="{_address(picture, root)}">{html.escape(picture.stem)}')
        for picture in pictures
    )
    parts.append(f'<div class="figures">{images}</div>' if images else "")
    settings = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>"
                       for k, v in (results.get("parameters") or run["parameters"]).items())  # fmt: skip
    parts.append(f"<details><summary>parameters</summary><table>{settings}</table></details></section>")
    return "\n".join(filter(None, parts))
