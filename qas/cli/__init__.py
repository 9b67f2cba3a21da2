"""The command line: ``qas`` and one of its commands, a module each; see ``qas --help``.

A command parses its words, calls the public functions and shows what they return. Answers go to standard output,
progress and errors to standard error. Input that does not fit ends in one line and exit code 2, Ctrl-C in 130. Modules
are imported by the command that needs them, and names are checked before anything heavy is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from qas.errors import QasError

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``qas``; None takes them from the process.

    Returns:
        0; 2 for input that does not fit, after one line on standard error; 130 after Ctrl-C; 141 if the reader of the
        output went away.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):  # a terminal may lack letters of a circuit drawing
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except QasError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # Python flushes standard output once more when it ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        print("qas: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(argv: Sequence[str]) -> int:
    from qas.cli.parser import build_parser

    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # --help and --version
        return int(end.code or 0)
    if arguments.run is None:
        parser.print_help()
        return 0
    return arguments.run(arguments)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"qas: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"qas: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
