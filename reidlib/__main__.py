"""`reidlib`, or `python -m reidlib`: one command for runs, studies, claims, rendering and the tools."""

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn


class Command(NamedTuple):
    """A subcommand: the module with its `add_arguments` and `run`, one line about it, an example."""

    module: str
    about: str
    example: str


COMMANDS = {
    "run": Command("course.runner", "run notebooks and write an index to read", 'run --profile smoke "02*" -p seed 3'),
    "sweep": Command(
        "course.sweeps", "run what a study has not recorded yet", "sweep 02_reid_baseline.seeds --dry-run"
    ),
    "claims": Command("course.paper_tables", "hold a paper's claims against the recorded tables", "claims pn_gan"),
    "render": Command(
        "tools.render", "render people, draw contact sheets, measure difficulty", "render --network dukemtmc --seed 1"
    ),
    "table": Command(
        "tools.people_table",
        "make the table of your own photographs",
        'table photographs --pattern "cam{camid}_{pid}_{n}"',
    ),
    "annotate": Command(
        "tools.annotate", "make key points and masks for photographs", "annotate photographs --weights keypointrcnn.pth"
    ),
    "judges": Command("tools.train_judges", "train and measure the judges of generated images", "judges --share 0.1"),
    "scaling": Command("tools.scaling", "measure an evaluation's time and memory", "scaling --sizes 1000 10000"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all is well, 1 if a part failed, 2 if the call was wrong, 130 if stopped."""
    name, *words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in COMMANDS:
        print(f"reidlib: there is no command {name!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    module = import_module(f"reidlib.{command.module}")
    parser = argparse.ArgumentParser(
        prog=f"reidlib {name}",
        description=f"{command.about[0].upper()}{command.about[1:]}.",
        epilog=f"example: reidlib {command.example}",
    )
    module.add_arguments(parser)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        return module.run(parser.parse_args(_shield(words)))
    except (OSError, ValueError) as error:  # a wrong call or file, a full disk: said in words
        print(f"reidlib {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(*_: object) -> NoReturn:
    """End on SIGTERM as on Ctrl-C: files and states are left in order."""
    raise KeyboardInterrupt


def _shield(words: Sequence[str]) -> list[str]:
    """Put a blank before the value of `-p NAME VALUE`, so that argparse takes one such as -1e-3 for no option.

    >>> _shield(["-p", "rate", "-1e-3", "--force"])
    ['-p', 'rate', ' -1e-3', '--force']
    """
    shielded, i = list(words), 0
    while i < len(words):
        named = words[i] == "-p" and i + 2 < len(words)
        if named:
            shielded[i + 2] = f" {words[i + 2]}"
        i += 3 if named else 1
    return shielded


def _overview() -> str:
    lines = ["usage: reidlib COMMAND [OPTIONS]; reidlib COMMAND --help shows the options", ""]
    for name, command in COMMANDS.items():
        lines += [f"  {name:10}{command.about}", f"  {'':10}reidlib {command.example}"]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
