"""`python -m reidlib.course.runs`: run the course, or part of it, and leave an index to read."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reidlib.course.index import write_index
from reidlib.course.parameters import PROFILES, ParameterError, read_parameters
from reidlib.course.runner import NOTEBOOKS, Job, announce, failures, find_notebooks, plan, run_all
from reidlib.files import resolve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all is well, 1 if a notebook failed, 2 if the call was wrong."""
    options = _parser().parse_args(arguments)
    given = dict(options.parameters)
    if options.profile:
        given["profile"] = options.profile
    try:
        notebooks = find_notebooks(options.notebooks, Path(options.folder))
        if not notebooks:
            raise FileNotFoundError(f"there are no notebooks in {options.folder}")
        if options.list:
            return _list(notebooks)
        jobs = [plan(notebook, given, output_root=options.output_root) for notebook in notebooks]
    except (ParameterError, FileNotFoundError) as error:
        print(f"reidlib.course.runs: {error}", file=sys.stderr)
        return 2
    root = resolve(options.output_root)

    def after_each(outcomes: Sequence[object], waiting: Sequence[Job]) -> None:
        write_index(root, waiting)

    def show(line: str) -> None:
        print(line, flush=True)

    show(announce(jobs, force=options.force))
    write_index(root, jobs)
    try:
        outcomes = run_all(jobs, force=options.force, keep_going=options.keep_going, show=show, after_each=after_each)
    except KeyboardInterrupt:
        write_index(root)
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    print(f"results: {write_index(root, jobs[len(outcomes) :])}")
    table = failures(outcomes)
    if table:
        print(f"\n{sum(bool(o.error) for o in outcomes)} of {len(jobs)} notebooks failed:\n{table}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reidlib.course.runs",
        description="Run the notebooks headlessly, each into its own folder, and write an index to read.",
    )
    parser.add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help='names, globs or files ("02*"); all by default'
    )
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                        help="a parameter of every notebook named, e.g. -p seed 3; --list shows them")  # fmt: skip
    parser.add_argument("--profile", choices=PROFILES, help="smoke: seconds; course: minutes; paper: for a GPU")
    parser.add_argument("--output-root", default="runs", help="where runs go (relative: from the repository)")
    parser.add_argument("--folder", default=str(NOTEBOOKS), help="where notebooks are looked for")
    parser.add_argument("--list", action="store_true", help="list the notebooks with their parameters and stop")
    parser.add_argument("--force", action="store_true", help="run again what is already done, from the start")
    parser.add_argument("--keep-going", action=argparse.BooleanOptionalAction, default=True,
                        help="go on after a failure (the default)")  # fmt: skip
    return parser


def _list(notebooks: Sequence[Path]) -> int:
    """Print every notebook with its parameters; return 2 if a parameters cell is faulty."""
    code = 0
    for notebook in notebooks:
        print(notebook.stem)
        try:
            for parameter in read_parameters(notebook).values():
                print(f"    {parameter.name}: {parameter.type} = {parameter.default!r}  # {parameter.help}")
        except ParameterError as error:
            code = 2
            print(f"    {error}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
