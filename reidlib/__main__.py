"""`reidlib`, or `python -m reidlib`: one command for runs, studies, claims, rendering and the tools."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import islice
from typing import NamedTuple

from reidlib.checks import WrongInput


class Command(NamedTuple):
    """A subcommand: the module with its `add_arguments` and `run`, one line about it, an example's words."""

    module: str
    about: str
    example: str


COMMANDS = {
    "run": Command("tools.run", "run notebooks and write an index to read", '--profile smoke "02*" -p seed 3'),
    "sweep": Command("tools.sweep", "run what a study has not recorded yet", "02_reid_baseline.seeds --dry-run"),
    "claims": Command("tools.claims", "hold a paper's claims against the recorded tables", "pn_gan"),
    "render": Command("tools.render", "render people, draw contact sheets, measure difficulty", "--network dukemtmc"),
    "table": Command("tools.people_table", "make a table of your photographs", 'mine --pattern "cam{camid}_{pid}_{n}"'),
    "annotate": Command("tools.annotate", "make key points and masks for photographs", "photographs --device cuda"),
    "match": Command("tools.match", "same person or not? a ranked list with verdicts", "asked.jpg photographs"),
    "starts": Command("tools.train_starts", "train what re-ID networks start from", "--only start-1"),
    "judges": Command("tools.train_judges", "train and measure the judges of generated images", "--share 0.1"),
    "generators": Command("tools.train_generators", "train and judge the recorded generators", "pn_gan --size smoke"),
    "recipe": Command("tools.choose_recipe", "compare recipes on validation people", '"batch 16" --seeds 2'),
    "swaps": Command("tools.choose_swaps", "find what makes clothes swap in DG-Net", '"raw codes" --seeds 0'),
    "scaling": Command("tools.scaling", "measure an evaluation's time and memory", "--sizes 1000 10000"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all is well, 1 if a part failed, 2 if the call was wrong, 130 if stopped.

    What is wrong with the arguments or the inputs is said in one line (see `checks.reading_inputs`); with `--debug`,
    and for every other error, the traceback shows.
    """
    name, *words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in COMMANDS:
        print(f"reidlib: there is no command {name!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module_name, about, example = COMMANDS[name]
    module = import_module(f"reidlib.{module_name}")
    about, example = f"{about[0].upper()}{about[1:]}.", f"example: reidlib {name} {example}"
    parser = argparse.ArgumentParser(prog=f"reidlib {name}", description=about, epilog=example)
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    module.add_arguments(parser)
    options = parser.parse_args(_shield(words))
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as on Ctrl-C: files and states stay in order
    try:
        ended = module.run(options)
        sys.stdout.flush()
        return ended
    except WrongInput as error:
        if options.debug:
            raise
        print(f"reidlib {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the last flush has somewhere to go
        return 141
    finally:
        signal.signal(signal.SIGTERM, before)


def _shield(words: Sequence[str]) -> list[str]:
    """Put a blank before the value of `-p NAME VALUE`, so that argparse takes one such as -1e-3 for no option.

    >>> _shield(["-p", "rate", "-1e-3", "--force"])
    ['-p', 'rate', ' -1e-3', '--force']
    """
    rest, shielded = iter(words), []
    for word in rest:
        shielded.append(word)
        if word == "-p":
            shielded += [*islice(rest, 1), *(f" {value}" for value in islice(rest, 1))]
    return shielded


def _overview() -> str:
    lines = ["usage: reidlib COMMAND [OPTIONS]; reidlib COMMAND --help shows the options", ""]
    for name, command in COMMANDS.items():
        lines += [f"  {name:10}{command.about}", f"  {'':10}reidlib {name} {command.example}"]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
