"""From the name of a command to its exit code: imports its module, lets Typer parse, and says what went wrong."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.main import get_command

from mlcli.cli import COMMANDS, EXIT_BUG, EXIT_INTERRUPTED, EXIT_USAGE, MODULES, OPTIONS, render
from mlcli.errors import EnvError, MlcliError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Typer carries click inside it since 0.25 and used the one beside it before; its public errors know either way.
UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "UsageError")

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# What the machine refuses: the user's to mend, and no bug of ours.
REFUSALS = frozenset(
    {"EACCES", "EDQUOT", "EFBIG", "EIO", "EMFILE", "ENAMETOOLONG", "ENFILE", "ENOSPC", "EPERM", "EROFS"}
)


class Invocation(NamedTuple):
    """A command line taken apart: how much to say, which command, and the words for it."""

    quiet: bool
    verbose: bool
    debug: bool
    command: str
    rest: tuple[str, ...]
    tracking_uri: str | None = None


def take_apart(argv: Sequence[str]) -> Invocation:
    """Find the command and the options that count everywhere.

    ``-q``, ``--quiet``, ``--verbose``, ``--debug`` and ``--tracking-uri`` may stand anywhere before a ``--``. A short
    ``-v`` counts before the command only: behind it, it is the command's own (``run -v`` names a version, ``runs list
    -v`` a view).
    """
    given: set[str] = set()
    words: list[str] = []
    uri = None
    waiting = list(reversed(argv))
    while waiting:
        word = waiting.pop()
        name, equals, value = word.partition("=")
        if word == "--":
            words += [word, *reversed(waiting)]
            break
        if word in ("-q", "--quiet"):
            given.add("quiet")
        elif word == "--verbose" or (word == "-v" and not words):
            given.add("verbose")
        elif word == "--debug":
            given.add("debug")
        elif name == "--tracking-uri" and (equals or waiting):
            uri = value if equals else waiting.pop()
        else:
            words.append(word)
    command, *rest = words or [""]
    return Invocation("quiet" in given, "verbose" in given, "debug" in given, command, tuple(rest), uri)


def run(invocation: Invocation) -> int:
    """Run the command and return the exit code; every error ends here, in one or two lines on stderr."""
    render.configure(render.Levels(invocation.quiet, invocation.verbose, invocation.debug))
    if invocation.tracking_uri is not None:
        os.environ["MLCLI_TRACKING_URI"] = invocation.tracking_uri  # so that what the command starts finds it too
    try:
        return _run(invocation)
    except KeyboardInterrupt:
        return _told(invocation, EXIT_INTERRUPTED, "interrupted")
    except BrokenPipeError:
        raise
    except MlcliError as error:
        return _told(invocation, error.exit_code, _message(error), error.hint)
    except UnicodeEncodeError as error:
        wrong = next((word for word in invocation.rest if not _is_text(word)), None)
        if wrong is None:
            return _bug(invocation, error)
        return _told(invocation, EXIT_USAGE, f"{wrong!r} is not valid text", "it has bytes that are not UTF-8")
    except OSError as error:
        import errno

        if errno.errorcode.get(error.errno or 0) not in REFUSALS:
            return _bug(invocation, error)
        place = f": {error.filename}" if error.filename else ""
        return _told(invocation, 1, f"{error.strerror}{place}")
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the last handler: what nobody named is a bug of ours
        return _bug(invocation, error)


def _run(invocation: Invocation) -> int:
    if not invocation.command:
        return _told(invocation, EXIT_USAGE, "no command is given", "`mlcli --help` lists the commands")
    if invocation.command not in COMMANDS:
        return _unknown_command(invocation)
    app = import_module(f"mlcli.cli.{MODULES.get(invocation.command, invocation.command)}").app
    app, path, rest = _narrow(app, f"mlcli {invocation.command}", list(invocation.rest))
    command: Any = get_command(app)
    gc.freeze()  # what was imported stays for good: no collection need look at it again
    gc.enable()
    try:
        context = command.make_context(path, rest, **_settings(command))
        with context:
            result = command.invoke(context)
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.Abort:
        return _told(invocation, 1, "stopped")
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            render.emit(error.ctx.get_help())
            return 0
        return _told(invocation, EXIT_USAGE, *_usage(error))
    return result if isinstance(result, int) else 0


def _narrow(app: typer.Typer, path: str, rest: list[str]) -> tuple[typer.Typer, str, list[str]]:
    """Where one command of a group is named, an app of that one only: Typer takes 1 ms to make each, needed or not."""
    inner = next((group for group in app.registered_groups if rest and group.name == rest[0]), None)
    if inner is not None and inner.typer_instance is not None and not app.registered_callback:
        return _narrow(inner.typer_instance, f"{path} {rest[0]}", rest[1:])
    commands = app.registered_commands
    if len(commands) < 2 or not rest or app.registered_callback:
        return app, path, rest
    named = [info for info in commands if rest[0] == (info.name or _typer_name(info.callback))]
    if not named:
        return app, path, rest
    only = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    only.registered_commands = named
    return only, f"{path} {rest[0]}", rest[1:]


def _typer_name(callback: Any) -> str:
    return str(callback.__name__).lower().replace("_", "-")


def _is_text(word: str) -> bool:
    """Whether the word can be written as UTF-8; bytes that were none arrive as lone surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _settings(command: Any) -> dict[str, Any]:
    return {name: value for name, value in SETTINGS.items() if name not in command.context_settings}


def _unknown_command(invocation: Invocation) -> int:
    word = invocation.command
    what = "option" if word.startswith("-") else "command"
    known = [name.split()[0] for names in OPTIONS for name in names.split(", ")] if what == "option" else list(COMMANDS)
    return _told(
        invocation, EXIT_USAGE, f"there is no {what} {word!r}", did_you_mean(word, known) or "`mlcli --help` lists them"
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with what resembles the word, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=2, cutoff=0.6)
    return f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else ""


def _usage(error: Any) -> tuple[str, str]:
    """The message and the hint of a usage error that Typer found."""
    path = error.ctx.command_path if error.ctx else "mlcli"
    hint = f"`{path} --help` shows how it is used"
    message = error.format_message().rstrip(".")
    if type(error).__name__ == "NoSuchOption":
        params = error.ctx.command.params if error.ctx else []
        known = [*(name for param in params for name in param.opts if name.startswith("-")), "--help"]
        return f"there is no option {error.option_name!r}", did_you_mean(error.option_name, known) or hint
    if message.startswith("No such command") and hasattr(error.ctx.command, "commands"):
        word = message.split("'")[1] if "'" in message else ""
        return f"there is no command {path.removeprefix('mlcli ')} {word!r}", (
            did_you_mean(word, error.ctx.command.commands) or f"`{path} --help` lists them"
        )
    return message[:1].lower() + message[1:], hint


def _message(error: MlcliError) -> str:
    if not isinstance(error, EnvError):
        return str(error)
    tail = "".join(f"\n  | {line}" for line in error.tail.rstrip().splitlines())
    return f"{error}{tail}" + (f"\n  the whole output: {error.log}" if error.log else "")


def _told(invocation: Invocation, code: int, message: str, hint: str = "") -> int:
    if invocation.debug and sys.exc_info()[0] is not None:
        import traceback

        traceback.print_exc()
    render.error(message, hint)
    return code


def _bug(invocation: Invocation, error: BaseException) -> int:
    """Keep all that a report needs in a file, and say so in two lines."""
    what = f"{type(error).__name__}: {error}"
    try:
        hint = f"a report is in {_report(error)}; it would help to send it to the authors"
    except OSError:
        hint = "run it again with --debug to see the traceback"
    return _told(invocation, EXIT_BUG, f"mlcli itself failed: {what}", hint)


def _report(error: BaseException) -> str:
    import time
    import traceback

    from mlcli._version import __version__
    from mlcli.config import masked, state_root

    folder = os.path.join(state_root(), "reports")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt")
    words = [masked(word) for word in sys.argv]
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(
            f"mlcli {__version__}, Python {sys.version}, {sys.platform}\ncommand: {words!r}\n\n"
            + "".join(traceback.format_exception(error))
        )
    return path
