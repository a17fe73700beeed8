# SPDX-FileCopyrightText: 2026 deal_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``deal VERB --help``: the command line, one module per verb, imported only when its verb is asked for.

Exit codes: 0 done, 1 the work failed or a check found faults, 2 wrong use. Messages and progress bars go to stderr,
results to stdout. A verb's module offers ``add_arguments(parser)`` and ``run(args) -> int``; its docstring opens with a
command that can be copied, and is what ``deal VERB --help`` shows.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import logging
import sys
from collections.abc import Sequence
from types import ModuleType

from deal_ros import __version__
from deal_ros.config import ConfigError
from deal_ros.engine.progress import Cancelled

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130

VERBS: dict[str, str] = {
    "import": "deal_ros.cli.import_",
    "check": "deal_ros.cli.check",
    "render": "deal_ros.cli.render",
    "store": "deal_ros.cli.store",
    "train-cam": "deal_ros.cli.train_cam",
    "pseudo-label": "deal_ros.cli.pseudo_label",
    "correct-labels": "deal_ros.cli.correct_labels",
    "train-student": "deal_ros.cli.train_student",
    "evaluate": "deal_ros.cli.evaluate",
    "run": "deal_ros.cli.run",
    "evidence": "deal_ros.cli.evidence",
    "export": "deal_ros.cli.export",
    "info": "deal_ros.cli.info",
    "label": "deal_ros.cli.label",
    "demo": "deal_ros.cli.demo",
}
"""Verb → module, in the order of the work."""

SUMMARIES: dict[str, str] = {
    "import": "turn ROS bags into a sample store",
    "check": "find faults in a data set before training does",
    "render": "make RGB-D scenes of scanned objects, with labels and true masks",
    "store": "look into a sample store and repair it",
    "train-cam": "train a class activation network from image labels, with DEAL",
    "pseudo-label": "turn its activations into label maps",
    "correct-labels": "let images with one class and those with several correct each other's label maps",
    "train-student": "train the onboard segmenter on label maps",
    "evaluate": "compare activations, label maps or a segmenter with true masks",
    "run": "all of the above from one recipe; resumes where it stopped",
    "evidence": "many runs, to say whether DEAL helps; resumes where it stopped",
    "export": "write a model bundle as ONNX, for torch.export, or at half its size",
    "info": "describe a model bundle, a store or this installation",
    "label": "say what is in view by number keys, live on a robot",
    "demo": "simulate a robot, teach it objects, show what it learnt",
}
"""What ``deal --help`` says of each verb; here, so that the list costs no import."""


class UsageError(ValueError):
    """The command was called in a way that cannot work; the message names the remedy. Exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code.

    Args:
        argv: the arguments after ``deal``; ``None`` takes the process's own.

    Returns:
        0 done, 1 failed or faults found, 2 wrong use, 130 interrupted with Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    verb = next((word for word in arguments if not word.startswith("-")), None)
    try:
        module = _load(verb) if verb in VERBS else None
        parser = build_parser(verb, module)
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # argparse has printed help or the error
        return stop.code if isinstance(stop.code, int) else WRONG_USE
    except ImportError as error:
        _say(f"deal {verb}: cannot be loaded: {error}; install what is missing and try again")
        return FAILED
    if module is None:
        parser.print_help(sys.stderr)
        return WRONG_USE
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("deal_ros").setLevel(logging.DEBUG if args.debug else logging.INFO)
    return _run(module, args, f"deal {verb}")


def build_parser(verb: str | None = None, module: ModuleType | None = None) -> argparse.ArgumentParser:
    """Build the whole parser: every verb is listed, only ``verb`` gets its arguments (from its loaded ``module``)."""
    parser = argparse.ArgumentParser(
        prog="deal",
        description="From labelled RGB-D frames to a segmenter, trained with depth edges.",
        epilog="example: deal run robot --data ~/samples --out runs/first",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=20, width=110),
    )
    parser.add_argument("--version", action="version", version=f"deal_ros {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and debug messages")
    verbs = parser.add_subparsers(metavar="VERB", title="verbs, in the order of the work")
    for name in VERBS:
        chosen = module is not None and name == verb
        sub = verbs.add_parser(
            name,
            help=SUMMARIES[name],
            description=(module.__doc__ or "").strip() if module is not None and chosen else SUMMARIES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module is not None and chosen:
            module.add_arguments(sub)
            sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    parser.error = _error_with_hint(parser)  # type: ignore[method-assign]
    return parser


def _load(verb: str | None) -> ModuleType:
    assert verb is not None
    return importlib.import_module(VERBS[verb])


def _run(module: ModuleType, args: argparse.Namespace, name: str) -> int:
    try:
        return int(module.run(args) or DONE)
    except KeyboardInterrupt:
        _say(f"{name}: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our results went away: nobody to tell
        sys.stderr.close()
        return FAILED
    except (ValueError, OSError, ImportError, Cancelled) as error:
        if args.debug:
            raise
        _say(f"{name}: {error or type(error).__name__}")
        return WRONG_USE if isinstance(error, (UsageError, ConfigError)) else FAILED


def _error_with_hint(parser: argparse.ArgumentParser):
    """Argparse's error, with the nearest verb where an unknown one was typed."""
    plain = parser.error

    def error(message: str) -> None:
        if "invalid choice" in message and "VERB" in message:
            typed = message.split("'")[1]
            near = difflib.get_close_matches(typed, VERBS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            message = f"unknown verb '{typed}'{hint} (known: {', '.join(VERBS)})"
        plain(message)

    return error


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
