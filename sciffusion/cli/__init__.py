"""The command line: ``sciffusion VERB DOMAIN ...``. What it offers stands in ``sciffusion --help``.

The verbs are the same for every domain, which is looked up by its name. A mistake of the user's is
one line and exit code 2; everything else is a traceback, as ``--debug`` makes of the former too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from sciffusion.errors import MissingExtra

_NO_CYCLOPTS = """\
the command line needs the package {name!r}, which is not installed here.
Install it with: pip install {name}
Training needs no command line. In Python:
  from sciffusion.domains import molecules
  model, state = molecules.train(molecules.recipe("qm9"), "runs/qm9")"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command (None: that of this process) and return its exit code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    try:
        from cyclopts import CycloptsError

        from .commands import app
    except ModuleNotFoundError as error:
        if error.name != "cyclopts":
            raise
        return _fail(_NO_CYCLOPTS.format(name=error.name))
    try:
        code = app(
            [token for token in tokens if token != "--debug"],
            exit_on_error=False,
            print_error=False,
            result_action="return_value",
        )
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BrokenPipeError:  # the reader went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CycloptsError, ValueError, OSError, MissingExtra) as error:
        if debug:
            raise
        return _fail(str(error))


def _fail(message: str, code: int = 2) -> int:
    """Say what is wrong, in red where there are colours."""
    from rich.console import Console
    from rich.text import Text

    text = Text.assemble(("error: ", "bold red"), (message.strip(), "red"))
    Console(stderr=True, soft_wrap=True).print(text)
    return code
