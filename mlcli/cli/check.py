"""`mlcli check`: find what is wrong with a project before it runs."""

from __future__ import annotations

import shlex
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mlcli.cli import options, render
from mlcli.projects.lint import check as find
from mlcli.projects.problem import ERROR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlcli.projects.problem import Problem

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

EXIT_ERRORS = 2


@app.command()
def check(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT", help="A folder, git address, .zip or script; PROJECT#SUB is the folder SUB inside it."
        ),
    ] = ".",
    version: Annotated[
        Optional[str],
        typer.Option("-v", "--version", metavar="REF", help="Branch, tag or commit of a git project."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Find what is wrong with a project before it runs; nothing of the project is run.

    Reads MLproject and the environment file, and says for each finding where it is and how to mend it.
    Exits with 2 when there are errors; warnings alone exit with 0.
    """
    problems = find(uri, version)
    errors = sum(problem.level == ERROR for problem in problems)
    if as_json:
        render.emit_json([problem._asdict() for problem in problems])
    elif render.on_terminal():
        _grouped(problems)
    else:
        for problem in problems:
            print(_line(problem))
    if not problems:
        render.success(f"no problems found; `mlcli run {shlex.quote(uri)}` runs it")
    elif not as_json:
        warnings = len(problems) - errors
        render.note(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}")
    if errors:
        raise typer.Exit(EXIT_ERRORS)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _line(problem: Problem) -> str:
    """One finding on one line, as compilers write them and editors read them."""
    hint = f" ({render.plain(problem.hint)})" if problem.hint else ""
    place = f"{render.plain(problem.place)}: " if problem.place else ""
    return f"{place}{problem.level}: {render.plain(problem.message)}{hint} [{problem.code}]"


def _grouped(problems: Sequence[Problem]) -> None:
    """Findings under the name of their file, the place before each and the way to mend it below."""
    for file, group in groupby(problems, key=lambda problem: problem.file):
        found = list(group)
        print(render.styled(render.plain(file or "project"), "bold"))
        space = max(len(_place(problem)) for problem in found)
        for problem in found:
            level = render.styled(f"{problem.level:7}", "red" if problem.level == ERROR else "yellow")
            indent = f"  {'':{space}}  {'':7}  "
            first, *more = _wrapped(problem.message, indent)
            print(f"  {_place(problem):>{space}}  {level}  {first}")
            for line in more:
                print(f"{indent}{line}")
            for text in problem.hint.splitlines():
                for line in _wrapped(text, indent):
                    print(f"{indent}{render.styled(line, 'dim')}")
        print()


def _wrapped(text: str, indent: str) -> list[str]:
    """The text in lines that leave room for ``indent`` on this terminal; what is indented itself stays as it is."""
    text = render.plain(text)
    room = max(render.terminal_width() - len(indent), 30)
    if text.startswith(" ") or render.width(text) <= room:
        return [text]
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)


def _place(problem: Problem) -> str:
    return ":".join(str(part) for part in (problem.line, problem.column) if part is not None)
