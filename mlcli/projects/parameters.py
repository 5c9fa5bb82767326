"""The values of an entry point's parameters: declared, defaulted, checked and resolved before anything starts.

the value is given ...         and does not fit its type      outcome
with -P                        makes no sense (int: abc)      error
with -P                        makes sense (int: 3.0)         used as it is, with a note
with -P, equal to the default  -                              used, as any default
as default                     -                              used as it is; ``mlcli check`` warns
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from mlcli.errors import InvalidInput, ProjectError
from mlcli.projects.download import ADDRESS, Download, planned
from mlcli.projects.problem import listing, similar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlcli.projects.mlproject import EntryPoint, Parameter

_INT = re.compile(r"[-+]?\d+(_\d+)*", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")  # two letters at least: C:\ is a drive
_LIKE_BOOL = frozenset(("1", "0", "yes", "no", "on", "off", "y", "n", "t", "f"))
NOTHING = ("", "None")  # how authors write "no value"; MLflow passes them on, and so do we


class Values(NamedTuple):
    """What goes into the command (``resolved``), is appended (``extras``), is recorded, is to be fetched (``downloads``)."""

    resolved: dict[str, str]
    extras: dict[str, str]
    recorded: dict[str, str]
    notes: tuple[str, ...]
    downloads: tuple[Download, ...] = ()


def parse_given(items: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Turn ``-P`` texts ``name=value`` into a dict; the first ``=`` splits."""
    result: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            hint = "write -P name=value" if not equals else "write the name before the `=`"
            raise InvalidInput(f"-P wants name=value, not `{item}`", hint=hint)
        if name in result:
            raise InvalidInput(f"the parameter `{name}` is given twice", hint=f"keep one `-P {name}=...`")
        result[name] = value
    return result


def resolve(
    entry: EntryPoint,
    given: Mapping[str, str],
    folder: str,
    file: str | None = None,
    storage_dir: str | None = None,
) -> Values:
    """Give every parameter its value, or raise one error that names every parameter in the way."""
    notes: list[str] = []
    extras = _extras(entry, given, notes)
    missing = [p for p in entry.parameters.values() if p.required and p.name not in given]
    if missing:
        raise _missing(entry, missing, file)
    resolved: dict[str, str] = {}
    recorded: dict[str, str] = {}
    wrong: list[_Wrong] = []
    downloads: list[Download] = []
    for number, parameter in enumerate(entry.parameters.values()):
        default = parameter.default if parameter.default is not None else ""
        value = given.get(parameter.name, default)
        check_text(parameter.name, value)
        if parameter.name in given and (parameter.required or value != default):
            complaint = misfit(parameter, value)
            if complaint is not None and not complaint.usable:
                message = f"the parameter `{parameter.name}` wants {complaint.wants}, not `{value}`"
                wrong.append(_Wrong(parameter, message, complaint.hint))
                continue
            if complaint is not None:
                notes.append(f"`{parameter.name}={value}` is passed on as it is, though {complaint.wants} is wanted")
        recorded[parameter.name] = value
        try:
            if parameter.type == "path" and ADDRESS.match(value) and not os.path.lexists(value):
                download = planned(parameter.name, value, number, storage_dir, downloads[0] if downloads else None)
                notes.append(f"`{parameter.name}` is downloaded to {download.path} before the program starts")
                downloads.append(download)
                resolved[parameter.name] = download.path
                continue
            resolved[parameter.name] = _located(parameter, value, folder, notes)
        except InvalidInput as error:
            wrong.append(_Wrong(parameter, error.message, error.hint))
    if wrong:
        raise _all_wrong(wrong, file)
    return Values(resolved, extras, {**recorded, **extras}, tuple(notes), tuple(downloads))


class _Wrong(NamedTuple):
    parameter: Parameter
    message: str
    hint: str


def _all_wrong(wrong: list[_Wrong], file: str | None) -> InvalidInput:
    """One error for all values that do not fit, with the places where their types are declared."""
    hints = [item.hint for item in wrong if item.hint]
    if file is not None:
        lines = [
            f"`{item.parameter.name}: {item.parameter.type}` on line {item.parameter.line}"
            for item in wrong
            if item.parameter.line
        ]
        hints += [f"{file} declares {', '.join(lines)}"] if lines else []
    return InvalidInput("\n".join(item.message for item in wrong), hint="\n".join(hints))


class Misfit(NamedTuple):
    """Why a value does not fit its type; ``usable`` when the value still makes sense there."""

    wants: str
    usable: bool
    hint: str = ""


def misfit(parameter: Parameter, value: str) -> Misfit | None:
    """Tell what is wrong with ``value`` for the type of ``parameter``; None when it fits."""
    nothing = value.strip() in NOTHING
    kind = parameter.type
    if kind in ("int", "integer") and not _INT.fullmatch(value.strip()):
        return Misfit("a whole number", nothing or _is_whole(value))
    if kind == "float" and not _is_float(value):
        comma = value.strip().replace(",", ".", 1)
        return Misfit("a number", nothing, f"write {comma}" if _is_float(comma) else "")
    if kind in ("bool", "boolean") and value.strip().lower() not in ("true", "false"):
        return Misfit("true or false", nothing or value.strip().lower() in _LIKE_BOOL)
    if kind == "uri" and not nothing and not _SCHEME.match(value):
        return Misfit("a URI with a scheme", False, "for a path of this machine write file:///absolute/path")
    return None


def _is_float(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_whole(value: str) -> bool:
    return _is_float(value) and float(value).is_integer()


def check_text(name: str, value: str) -> None:
    """Refuse what no program can be given as an argument."""
    if "\0" in name or "\0" in value:
        raise InvalidInput(
            f"the parameter `{name!r}` holds a NUL character", hint="no program can be given one as an argument"
        )


def _extras(entry: EntryPoint, given: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    extras = {name: value for name, value in given.items() if name not in entry.parameters}
    for name, value in extras.items():
        check_text(name, value)
        if not name.strip():
            raise InvalidInput("a parameter without a name", hint="write -P name=value")
        meant = similar(name, [known for known in entry.parameters if known not in given])
        if meant is not None:
            raise InvalidInput(
                f"the entry point `{entry.name}` has no parameter `{name}`", hint=f"did you mean `{meant}`?"
            )
    if extras and entry.script is None:
        shown = " ".join(f"--{name}" for name in extras)
        notes.append(f"{listing(list(extras))} not declared by `{entry.name}`: appended to the command as {shown}")
    return extras


def _missing(entry: EntryPoint, missing: list[Parameter], file: str | None) -> InvalidInput:
    names = listing([parameter.name for parameter in missing])
    word = "parameter" if len(missing) == 1 else "parameters"
    reasons = [f"{parameter.name}: {parameter.lost}" for parameter in missing if parameter.lost]
    give = " ".join(f"-P {parameter.name}=..." for parameter in missing)
    message = f"no value for the {word} {names} of the entry point `{entry.name}`"
    if not reasons:
        return InvalidInput(message, hint=f"give {give}")
    return ProjectError(
        f"{message}\n" + "\n".join(f"  {reason}" for reason in reasons),
        file=file,
        hint=f"mend the file, or give {give}",
    )


def _located(parameter: Parameter, value: str, folder: str, notes: list[str]) -> str:
    """Make a ``path`` absolute: seen from the caller's folder, as MLflow does, else from the project's."""
    if parameter.type == "uri" and value.strip() not in NOTHING and not _SCHEME.match(value):
        raise InvalidInput(
            f"the parameter `{parameter.name}` wants a URI with a scheme, not `{value}`",
            hint="for a path of this machine write file:///absolute/path",
        )
    if parameter.type != "path" or value.strip() in NOTHING:
        return value
    path = value
    if value.startswith("file:"):
        path = _file_path(parameter.name, value)
    elif value.startswith("runs:/"):
        from mlcli import artifacts

        return artifacts.resolve(value)
    elif _SCHEME.match(value) and not os.path.lexists(value):
        raise InvalidInput(
            f"the parameter `{parameter.name}` is a path, and mlcli does not download `{value}`",
            hint="it fetches http, https and runs:/ addresses; download this one first and give its path; or declare the parameter with `type: uri`, "
            "so that the script gets the address and fetches it",
        )
    here = os.path.abspath(path)
    if os.path.exists(here):
        return here
    there = os.path.abspath(os.path.join(folder, path))
    if os.path.exists(there):
        notes.append(f"`{parameter.name}`: {path} found in the project's folder")
        return there
    places = f"{here}" if here == there else f"{here}, nor {there}"
    raise InvalidInput(f"the parameter `{parameter.name}` wants an existing path: there is no {places}")


def _file_path(name: str, uri: str) -> str:
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidInput(f"the parameter `{name}`: `{uri}` is not a URI: {error}") from None
    if parts.netloc not in ("", "localhost"):
        raise InvalidInput(f"the parameter `{name}`: `{uri}` names another machine", hint="write file:///absolute/path")
    return url2pathname(parts.path)
