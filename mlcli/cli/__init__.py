"""The command line: one table of commands, each a module imported when it is named, and one boundary for errors.

Typer parses a command; it is imported when a command is reached. The list of commands and the version need no
more than the table, so they answer in the time that Python itself takes to start. (The collector's functions have names
of their own here: once `mlcli gc` is imported, `gc` in this package is that command.)
"""

from __future__ import annotations

import atexit
import os
import sys
from gc import disable as collect_no_garbage

TYPE_CHECKING = False  # typing's own takes 2 ms to import, a fifth of what `--version` may take
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

COMMANDS = {
    "run": "Run an entry point of a project and record the run.",
    "check": "Find what is wrong with a project before it runs.",
    "evaluate": "Tell how good a model is, and whether it beats another.",
    "runs": "List, search, show, compare, export and tidy up runs.",
    "experiments": "Create, search, rename, delete and export experiments.",
    "artifacts": "List, download and log the files of runs.",
    "models": "Register, compare, inspect, serve and download models.",
    "rollouts": "Compare models under live traffic: A/B, canary, shadow, bandit.",
    "monitor": "Watch what models see and how they serve.",
    "import": "Bring runs here from MLflow, a server, another store, a bundle.",
    "export": "Put runs into one file, or send them to a server.",
    "env": "List, explain, lock and remove the environments of projects.",
    "sync": "Send what is still to go to a tracking server.",
    "gc": "Remove for good what was deleted.",
    "server": "Serve pages and MLflow's REST API, for one or for a team.",
    "ui": "Look at runs, charts and models in the browser.",
    "doctor": "Show versions, settings and the health of the store.",
}

# The modules of commands whose names are not names of modules.
MODULES = {"import": "import_"}

OPTIONS = {
    "-q, --quiet": "Say nothing but the data and errors.",
    "-v, --verbose": "Say more (after a command: --verbose).",
    "--tracking-uri URI": "A folder or a server; else the nearest mlruns.",
    "--debug": "Show the traceback of an error.",
    "--install-completion [SHELL]": "Set up the Tab key for this or that shell.",
    "--show-completion [SHELL]": "Print what that would set up.",
    "--version": "Print the version.",
    "-h, --help": "Print this help; after a command, its own.",
}

EXIT_USAGE = 2
EXIT_BUG = 4
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141


def main() -> NoReturn:
    """Run the command line of this process and exit with its code; the one place that turns errors into codes."""
    argv = sys.argv[1:]
    _open_standard_streams()
    try:
        code = _answered(argv)
        _flush()
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = EXIT_CLOSED_PIPE
        _silence_stdout()
    except OSError as error:  # stdout takes no more; commands' own troubles were told by the boundary
        from mlcli.cli.render import error as tell

        tell(f"cannot write the output: {error.strerror}")
        code = 1
        _silence_stdout()
    _leave(code)


def _answered(argv: Sequence[str]) -> int:
    if "_MLCLI_COMPLETE" in os.environ:
        from mlcli.cli.completion import answer

        return answer()
    if argv and argv[0] == "--version":
        from mlcli._version import __version__

        print(f"mlcli {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help", "help"):
        if len(argv) < 2 or argv[1] not in COMMANDS:
            print(overview())
            return 0
        argv = [*argv[1:], "--help"]
    if argv[0] in ("--install-completion", "--show-completion"):
        from mlcli.cli.completion import set_up

        return set_up(argv[0], argv[1:])
    collect_no_garbage()  # importing makes objects by the ten thousand and no garbage; the boundary turns it on again
    from mlcli.cli.boundary import run, take_apart

    return run(take_apart(argv))


def overview() -> str:
    """What `mlcli --help` prints; fits 80 columns."""
    return "\n".join(
        [
            "Usage: mlcli [OPTIONS] COMMAND ...",
            "",
            "  Runs any machine learning project from one command and remembers every run.",
            "",
            "  mlcli run PROJECT -P alpha=0.5    runs it, in an environment of its own",
            "  mlcli runs list                   what ran, and with what result",
            "  mlcli runs show latest            all about the newest run",
            "",
            "Commands:",
            *_listed(COMMANDS),
            "",
            "Options:",
            *_listed(OPTIONS),
            "",
            "A run is named by its id, any unique beginning of it, its name, `latest`, or",
            "`latest~1` (the one before).",
            "",
            "Exit codes: 0 done, 1 failed, 2 usage or bad project, 3 not found, 4 a bug of",
            "mlcli, 5 environment failed, 6 store unavailable, 130 interrupted. `mlcli run`",
            "exits with the code of what it ran, or 128 + the signal that ended it.",
        ]
    )


def _listed(table: dict[str, str]) -> list[str]:
    space = max(map(len, table)) + 2
    return [f"  {name:{space}}{about}" for name, about in table.items()]


def _open_standard_streams() -> None:
    """Make sure that descriptors 0 to 2 are open and that no character can fail to be written.

    A program started with a closed stdin or stdout would get 0 or 1 for the next file it opens, and print into it.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:  # the lowest free descriptor is what open gives
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - lives as long as the process
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _leave(code: int) -> NoReturn:
    """End the process without taking apart, module by module, what the system takes back at once: 5 ms of every command."""
    atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter itself calls; there is no public name for it
    try:
        _flush()
    except (OSError, ValueError):  # told already, or nobody is there to be told
        pass
    os._exit(code)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()


def _silence_stdout() -> None:
    """Nobody reads on: let the interpreter's own last flush go nowhere instead of failing aloud."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
