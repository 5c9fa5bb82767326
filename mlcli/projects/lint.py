"""Everything that is, or may be, wrong with a project, found without running it.

An error: a run as the file describes it would fail, or a default the author wrote is lost. A warning: it runs, perhaps
not as meant.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from mlcli.errors import InvalidInput, ProjectError
from mlcli.projects import mlproject, project, source, template
from mlcli.projects.parameters import NOTHING, misfit
from mlcli.projects.problem import ERROR, WARNING, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlcli.projects.mlproject import EntryPoint, Parameter
    from mlcli.projects.project import Project
    from mlcli.projects.yamlfile import Document

_ABSOLUTE = re.compile(r"/(?!dev/|tmp/?)[\w.-]+/|~|[A-Za-z]:[\\/]")
# The program text that a command line gives to an interpreter.
_CODE = re.compile(
    r"(?:\A|[\s;&|(])(?:python[\d.]*|Rscript|perl|node|awk|jq)\s+(?:-\w+\s+)*?-\w*[ce]\s+"
    r"""(?P<text>(?:'[^']*'|"(?:\\.|[^"\\])*"|[^\s'";|&])+)""",
    re.DOTALL,
)


def check(uri: str, version: str | None = None, *, submodules: bool = False) -> list[Problem]:
    """Give all problems of a project, in the order of the files and lines they stand in."""
    try:
        found = project.read(source.locate(uri, version, submodules=submodules))
    except ProjectError as error:
        return [Problem(ERROR, "unreadable", error.message, error.file, error.line, error.column, error.hint)]
    document = mlproject.read(found.file).document if found.file is not None else None
    problems = [*_of_file(found), *_environment(found), *_entry_points(found)]
    if document is not None:
        for entry in found.entry_points.values():
            problems += _entry_point(found, entry, document)
    unique = list(dict.fromkeys(problems))
    first = mlproject.shown(found.file) if found.file else None
    return sorted(
        unique, key=lambda p: (p.file is not None and p.file != first, p.file or "", p.line or 0, p.column or 0)
    )


def _of_file(found: Project) -> Iterator[Problem]:
    """Those of the reader; a key whose misspelling takes a default away counts as an error here."""
    parameters = [parameter for entry in found.entry_points.values() for parameter in entry.parameters.values()]
    blamed = {_line(parameter.lost) for parameter in parameters if parameter.lost}
    explained = {problem.place for problem in found.problems if problem.level == ERROR}
    for problem in found.problems:
        if problem.code != "unknown-key":
            yield problem
        elif problem.line in blamed and "default" in problem.hint:
            message = f"{problem.message}, so the parameter has no default"
            yield problem._replace(level=ERROR, code="lost-default", message=message)
        elif problem.place not in explained:  # an error there says it better
            yield problem


def _line(lost: str) -> int | None:
    number = re.match(r"line (\d+) ", lost)
    return int(number.group(1)) if number else None


def _environment(found: Project) -> Iterator[Problem]:
    yield from found.env.problems
    if found.env.kind == "none" and os.path.isfile(os.path.join(found.folder, "requirements.txt")):
        path = mlproject.shown(os.path.join(found.folder, "requirements.txt"))
        yield Problem(
            WARNING,
            "unused-requirements",
            "nothing names this file: the project runs without what it lists",
            path,
            hint="create python_env.yaml with the lines `dependencies:` and `  - -r requirements.txt`",
        )


def _entry_points(found: Project) -> Iterator[Problem]:
    file = mlproject.shown(found.file) if found.file else None
    try:
        project.entry_point(found)
    except ProjectError as error:
        if found.entry_points and "main" not in found.entry_points:
            names = ", ".join(f"`{name}`" for name in found.entry_points)
            message = f"no entry point `main`: `mlcli run` needs -e with one of {names}"
            yield Problem(WARNING, "no-main", message, file, hint="rename the one people run most to `main`")
        elif not found.entry_points:
            yield Problem(
                ERROR, "nothing-to-run", error.message, error.file or file, error.line, error.column, error.hint
            )


# --- one entry point


def _entry_point(found: Project, entry: EntryPoint, document: Document) -> Iterator[Problem]:
    where = ("entry_points", entry.name)
    for parameter in entry.parameters.values():
        yield from _parameter(parameter, document, (*where, "parameters", parameter.name))
    if not entry.command:
        return
    try:
        used = template.placeholders(entry.command, entry.parameters)
    except InvalidInput as error:
        yield document.problem(ERROR, "command", error.message, *where, "command", hint=error.hint)
        return
    for name in entry.parameters:
        if name not in used:
            yield document.problem(
                WARNING,
                "unused-parameter",
                f"the command of `{entry.name}` does not use the parameter `{name}`; it is recorded and has no effect",
                *where,
                "parameters",
                name,
                hint=f"add `{{{name}}}` to the command, or remove the parameter",
            )
    yield from _command(found, entry, document)


def _command(found: Project, entry: EntryPoint, document: Document) -> Iterator[Problem]:
    where = ("entry_points", entry.name, "command")
    text = entry.command
    missing = _missing_script(found, entry)
    if missing is not None:
        name, hint = missing
        yield document.problem(
            ERROR, "missing-script", f"the command runs `{name}`, which is not there", *where, hint=hint
        )
    if re.search(r"(?<!\\)(\\\\)*\\\s*\Z", text):
        yield document.problem(
            WARNING,
            "trailing-backslash",
            "the command ends with a backslash",
            *where,
            hint="remove it: it joins the command to nothing",
        )
    elif re.search(r"\\\n", text):
        yield document.problem(
            WARNING,
            "windows",
            "a `\\` at the end of a line does not continue it on Windows",
            *where,
            hint="use a folded block: `command: >-` and the lines below it",
        )
    items = template.parse_template(text, entry.parameters)
    filled = "".join(item if isinstance(item, str) else "\0" for item in items)
    if any("\0" in found["text"] for found in _CODE.finditer(filled)):
        yield document.problem(
            WARNING,
            "value-in-code",
            "a parameter may stand inside program text here, where its value is read as code",
            *where,
            hint="give it to the program as an argument of its own",
        )
    if re.search(r"[\u201c\u201d\u2018\u2019]", text):
        yield document.problem(
            WARNING,
            "typographic-quotes",
            "typographic quotes are no quotes to a shell",
            *where,
            hint="""write " or '""",
        )
    if re.search(r"\s[\u2013\u2014]+\w", text):
        yield document.problem(
            WARNING, "typographic-dash", "a long dash does not begin an option", *where, hint="write two hyphens: --"
        )


def _missing_script(found: Project, entry: EntryPoint) -> tuple[str, str] | None:
    """The script that a plain ``python x.py`` names and that is not there, with a hint."""
    try:
        words = template.split_words(template.parse_template(entry.command.strip(), entry.parameters))
    except InvalidInput:
        return None
    texts = ["".join(item if isinstance(item, str) else "\0" for item in word) for word in words or []]
    if len(texts) < 2 or not re.fullmatch(r"(python[\d.]*|bash|sh|Rscript)", texts[0]):
        return None
    name = next((text for text in texts[1:] if not text.startswith("-")), "")
    before = texts[1 : texts.index(name)] if name else []
    if (
        not name.endswith(source.SCRIPTS)
        or "\0" in name
        or any(word not in ("-u", "-O", "-B", "-e", "-x") for word in before)
    ):
        return None
    if os.path.exists(os.path.join(found.folder, name)):
        return None
    from mlcli.projects.problem import similar

    folder = os.path.join(found.folder, os.path.dirname(name))
    known = project.scripts(folder) if os.path.isdir(folder) else []
    meant = similar(os.path.basename(name), known)
    return name, f"did you mean `{os.path.join(os.path.dirname(name), meant)}`?" if meant else f"looked in {folder}"


# --- one parameter


def _parameter(parameter: Parameter, document: Document, where: tuple[str, ...]) -> Iterator[Problem]:
    if parameter.default is None:
        return
    key = (*where, "default")
    written = document.written(*key)
    complaint = misfit(parameter, parameter.default)
    if complaint is not None and parameter.default not in NOTHING:
        level = ERROR if parameter.type == "uri" else WARNING
        yield document.problem(
            level, "default-type", f"the default of `{parameter.name}` is `{written or parameter.default}`, "
            f"and its type {parameter.type} wants {complaint.wants}",
            *key, hint=complaint.hint or "change the default or the type",
        )  # fmt: skip
    elif parameter.default == "None":
        yield document.problem(
            WARNING, "default-none", f"the default of `{parameter.name}` is the text `None`, and the command gets that text",
            *key, hint="if the script does not expect it, use an empty default or none at all",
        )  # fmt: skip
    if written is not None and not document.quoted(*key) and _changed(parameter, written):
        yield document.problem(
            WARNING, "yaml-value", f"YAML reads `{written}` as {_as_yaml(written, parameter.default)}, "
            f"so `{parameter.name}` is `{parameter.default}`",
            *key, hint=f'put it in quotes: "{written}"',
        )  # fmt: skip
    if parameter.type != "uri" and _ABSOLUTE.match(parameter.default):
        yield document.problem(
            WARNING, "absolute-path", f"the default of `{parameter.name}` is a path of one machine: {parameter.default}",
            *key, hint="use a path inside the project, or no default",
        )  # fmt: skip
    if "\\" in parameter.default:
        yield document.problem(
            WARNING, "windows", f"the default of `{parameter.name}` has backslashes, which only Windows reads as folders",
            *key, hint="write /",
        )  # fmt: skip


def _changed(parameter: Parameter, written: str) -> bool:
    """Tell whether YAML made something else of the default than what stands there, as far as the type cares."""
    default = parameter.default
    if default == written:
        return False
    if parameter.type in ("bool", "boolean"):
        return default not in ("True", "False")
    if parameter.type in ("int", "integer", "float"):
        try:
            return float(written) != float(str(default))
        except ValueError:
            return not re.fullmatch(r"[-+]?\.(inf|nan)", written.lower())
    return written.lower() not in ("true", "false") or default not in ("True", "False")


def _as_yaml(written: str, default: str) -> str:
    if default in ("True", "False"):
        return "a truth value"
    if ":" in written:
        return "a time of base 60"
    return "an octal number" if re.fullmatch(r"[-+]?0[0-7_]+", written) else "a number"
