"""The command line, ``napari-diffseg COMMAND``.

Exit codes: 0 when what was asked for was written and read again, 1 with one line on standard
error when it could not be done, 2 for wrong use, 130 after Ctrl+C.
"""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
import warnings
from collections.abc import Sequence

from napari_diffseg.cli import commands, numbers
from napari_diffseg.cli.evaluate import add_evaluate
from napari_diffseg.cli.model import add_model
from napari_diffseg.cli.options import Formatter
from napari_diffseg.cli.predict import add_predict

_ABOUT = "Segment every slice of a CT from a few painted ones."
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    Parameters
    ----------
    argv
        Arguments; those of the process by default.

    Raises
    ------
    SystemExit
        With code 2 for wrong use, and 0 for ``--help`` and ``--version``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    if not debug:
        # Libraries warn about their own future; the user can do nothing about it.
        warnings.simplefilter("ignore")
        logging.getLogger().setLevel(logging.ERROR)
    try:
        args = _parser(words).parse_args(words)
        return int(args.run(args))
    except KeyboardInterrupt:
        print("napari-diffseg: stopped", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        print(f"napari-diffseg: error: {_one_line(error)}", file=sys.stderr)
        return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("napari-diffseg", description=_ABOUT)
    parser.add_argument("--version", action=commands.Version)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return subparsers.add_parser(
            name, parents=[common], help=text, description=text, formatter_class=Formatter
        )

    segment = add("segment", "train on painted slices of a CT and segment all of it")
    if "segment" in words:
        # Its options come from a module that imports torch, which takes seconds.
        from napari_diffseg.cli.segment import add_options

        add_options(segment)
    train = add("train", "train one model on several patients")
    if "train" in words:
        from napari_diffseg.cli import train as training

        training.add_options(train)
    add_predict(add("predict", "segment other CTs with a saved model"))
    add_evaluate(add("evaluate", "compare a mask with a reference"))
    numbers.add_measure(add("measure", "measure the labels of a CT: a table, or a report"))
    numbers.add_compare(add("compare", "compare two masks of one CT, such as two readers'"))
    add_model(add("model", "say what a saved model is"), common)
    commands.add_open(add("open", "open napari with a CT and the panel"))
    commands.add_backbones(add("backbones", "list, verify or import pre-trained backbones"), common)
    commands.add_doctor(add("doctor", "try the engine and say what is missing"))
    return parser


def _one_line(error: Exception) -> str:
    from napari_diffseg.io.errors import plain  # with it come the readers of all formats

    text = plain(error)
    if isinstance(error, ValueError) and text:
        return text
    from napari_diffseg.io.formats import out_of_memory  # not before it is needed: it takes long

    if out_of_memory(error):
        return "not enough memory; close other programs or use a smaller volume"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}; check the folder and its permissions"
    return f"{type(error).__name__}: {text or 'no message'} (--debug shows where)"
