"""The MLproject file: its fields, checked and made into values.

What MLflow runs is read here; what it ignores (an unknown key) is a warning; what it crashes on is an error with a
place. One waits until it matters (``LATER``): an entry point without command hurts only who runs it.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from mlcli.projects import yamlfile
from mlcli.projects.docker import DockerSpec
from mlcli.projects.problem import ERROR, WARNING, Problem, similar

TYPES = ("string", "str", "float", "int", "integer", "bool", "boolean", "path", "uri", "list")
LATER = frozenset(("no-command",))

_TOP = ("name", "python_env", "conda_env", "docker_env", "entry_points", "databricks_spark_job")
_ENVS = {"docker_env": "docker", "python_env": "python", "conda_env": "conda"}
_ENTRY_POINT = ("parameters", "command", "description")
_PARAMETER = ("type", "default", "description")
_DOCKER = ("image", "volumes", "environment")
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_EXAMPLE = 'a minimal one:\n\nname: demo\nentry_points:\n  main:\n    command: "python train.py"'


class Parameter(NamedTuple):
    """A parameter of an entry point; ``lost`` says which misspelling took its default away, if one did."""

    name: str
    type: str = "string"
    default: str | None = None
    required: bool = True
    description: str = ""
    line: int | None = None
    lost: str = ""


class EntryPoint(NamedTuple):
    """A command of the project, with ``{name}`` where its parameters go; ``script`` when it is a file, not declared."""

    name: str
    command: str
    parameters: dict[str, Parameter]
    line: int | None = None
    script: str | None = None
    note: str = ""


class MLproject(NamedTuple):
    """What an MLproject file says."""

    name: str
    env_kind: str | None
    env_file: str | None
    docker: DockerSpec | None
    entry_points: dict[str, EntryPoint]
    problems: tuple[Problem, ...]
    document: yamlfile.Document


def read(path: str) -> MLproject:
    """Read the MLproject file at ``path``; all its problems are in the result, only unreadable YAML raises."""
    return _Reader(yamlfile.read(path, file=shown(path))).mlproject()


def text(value: object) -> str:
    """The text MLflow passes on for a YAML value: Python's own (``true`` is ``True``, ``010`` is ``8``)."""
    return str(value)


def shown(path: str) -> str:
    """``path`` as seen from the current folder, when that is shorter."""
    try:
        relative = os.path.relpath(path)
    except (ValueError, OSError):  # another drive; the current folder is gone
        return path
    return path if relative.startswith(os.path.join("..", "..")) else relative


class _Reader:
    def __init__(self, document: yamlfile.Document) -> None:
        self._document = document
        self._problems = document.problems

    def mlproject(self) -> MLproject:
        data = self._document.data
        if not isinstance(data, dict):
            found = "empty" if data is None else "a list" if isinstance(data, list) else "one plain value"
            self._add(ERROR, "not-a-map", f"an MLproject is a map of `key: value`, this one is {found}", hint=_EXAMPLE)
            data = {}
        self._unknown(data, _TOP)
        name = data.get("name")
        if isinstance(name, (dict, list)):
            self._add(ERROR, "bad-name", "`name` wants a text", "name")
            name = None
        env_kind, env_file, docker = self._environment(data)
        if docker is not None and name is None:
            self._add(
                ERROR,
                "no-name",
                "a project with `docker_env` needs a `name`: its image is called so",
                hint="add `name: something` at the top",
            )
        return MLproject(
            text(name) if name is not None else "",
            env_kind,
            env_file,
            docker,
            self._entry_points(data),
            tuple(self._problems),
            self._document,
        )

    def _add(self, level: str, code: str, message: str, *keys: str | int, hint: str = "") -> None:
        self._problems.append(self._document.problem(level, code, message, *keys, hint=hint))

    # --- environment

    def _environment(self, data: dict[str, object]) -> tuple[str | None, str | None, DockerSpec | None]:
        present = [key for key in _ENVS if data.get(key) is not None]
        for key in _ENVS:
            if key in data and data[key] is None:
                self._add(WARNING, "empty-env", f"`{key}` is empty and counts as absent", key, hint="remove the line")
        if data.get("databricks_spark_job") is not None:
            self._add(
                WARNING,
                "databricks",
                "`databricks_spark_job` is ignored: such jobs run on Databricks only",
                "databricks_spark_job",
            )
        if len(present) > 1:
            lines = ", ".join(f"`{key}` (line {self._document.mark(key)[0]})" for key in present)
            self._add(ERROR, "several-envs", f"more than one environment: {lines}", present[1], hint="keep one of them")
            return None, None, None
        if not present:
            return None, None, None
        key = present[0]
        value = data[key]
        if key == "docker_env":
            return "docker", None, self._docker(value)
        if isinstance(value, (dict, list)):
            self._add(
                ERROR,
                "bad-env",
                f"`{key}` wants the path of a file",
                key,
                hint=f"move what stands below it to a file and write `{key}: {key}.yaml`",
            )
            return None, None, None
        path = self._document.written(key) or ""
        if "\0" in path or "\n" in path or not path.strip():
            self._add(ERROR, "bad-env", f"`{key}` wants the path of a file", key)
            return None, None, None
        return _ENVS[key], path, None

    def _docker(self, value: object) -> DockerSpec | None:
        if not isinstance(value, dict):
            self._add(
                ERROR,
                "bad-docker",
                "`docker_env` wants a map with `image`",
                "docker_env",
                hint="docker_env:\n  image: python:3.11",
            )
            return None
        self._unknown(value, _DOCKER, "docker_env")
        image = value.get("image")
        if not isinstance(image, str) or not image or re.search(r"[\s\0]", image) or image.startswith("-"):
            self._add(
                ERROR,
                "no-image",
                "`docker_env` needs an `image`, the name of a Docker image",
                "docker_env",
                "image",
                hint="docker_env:\n  image: python:3.11",
            )
            return None
        volumes = value.get("volumes") or []
        if not isinstance(volumes, list) or not all(isinstance(item, str) for item in volumes):
            self._add(
                ERROR,
                "bad-volumes",
                "`volumes` wants a list of texts",
                "docker_env",
                "volumes",
                hint='volumes: ["/host/folder:/folder/inside"]',
            )
            volumes = []
        for number, item in enumerate(volumes):
            if re.search(r"[\n\r\0]", item) or item.startswith("-"):
                self._add(
                    ERROR,
                    "bad-volumes",
                    f"`{item!r}` is not a volume",
                    "docker_env",
                    "volumes",
                    number,
                    hint='write "/host/folder:/folder/inside"',
                )
        return DockerSpec(image, tuple(volumes), self._docker_environment(value.get("environment") or []))

    def _docker_environment(self, items: object) -> tuple[str | tuple[str, str], ...]:
        hint = 'environment: ["COPIED_FROM_HOST", ["NAME", "value"]]'
        if not isinstance(items, list):
            self._add(ERROR, "bad-environment", "`environment` wants a list", "docker_env", "environment", hint=hint)
            return ()
        result: list[str | tuple[str, str]] = []
        for number, item in enumerate(items):
            where = ("docker_env", "environment", number)
            name = item[0] if isinstance(item, list) and len(item) == 2 else item
            if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
                self._add(ERROR, "bad-environment", f"`{name}` is not the name of a variable", *where, hint=hint)
            elif not isinstance(item, list):
                result.append(name)
            elif isinstance(item[1], (dict, list)) or item[1] is None or re.search(r"[\n\r\0]", text(item[1])):
                self._add(
                    ERROR, "bad-environment", f"the value of `{name}` wants to be one line of text", *where, hint=hint
                )
            else:
                result.append((name, text(item[1])))
        return tuple(result)

    # --- entry points

    def _entry_points(self, data: dict[str, object]) -> dict[str, EntryPoint]:
        found = data.get("entry_points")
        if found is None:
            if "entry_points" in data:
                self._add(
                    WARNING,
                    "no-entry-points",
                    "`entry_points` is empty",
                    "entry_points",
                    hint="add an entry point `main:` with a `command:`",
                )
            return {}
        if not isinstance(found, dict):
            self._add(
                ERROR,
                "bad-entry-points",
                "`entry_points` wants a map of names",
                "entry_points",
                hint='entry_points:\n  main:\n    command: "python train.py"',
            )
            return {}
        return {name: self._entry_point(name, value) for name, value in found.items()}

    def _entry_point(self, name: str, value: object) -> EntryPoint:
        where = ("entry_points", name)
        line = self._document.mark(*where)[0]
        if not isinstance(value, dict):
            example = value if isinstance(value, str) and "\n" not in value else "python train.py"
            self._add(
                ERROR,
                "bad-entry-point",
                f"the entry point `{name}` wants a map with `command`",
                *where,
                hint=f'{name}:\n  command: "{example}"',
            )
            return EntryPoint(name, "", {}, line)
        self._unknown(value, _ENTRY_POINT, *where)
        command = value.get("command")
        if not isinstance(command, str) or not command.strip():
            self._no_command(name, value)
            command = ""
        return EntryPoint(name, command, self._parameters(value.get("parameters"), where), line)

    def _no_command(self, name: str, value: dict[str, object]) -> None:
        where = ("entry_points", name)
        misspelt = next((key for key in value if key not in _ENTRY_POINT and similar(key, ["command"])), None)
        if misspelt is not None:
            line = self._document.mark(*where, misspelt)[0]
            message = f"the entry point `{name}` has no command: line {line} has `{misspelt}`, did you mean `command`?"
            self._add(ERROR, "no-command", message, *where, misspelt, hint=f"rename `{misspelt}` to `command`")
        elif value.get("command") is None or value.get("command") == "":
            self._add(
                ERROR,
                "no-command",
                f"the entry point `{name}` has no command",
                *where,
                hint='add a line like `command: "python train.py"`',
            )
        else:
            self._add(
                ERROR,
                "no-command",
                f"the command of the entry point `{name}` is not a text",
                *where,
                "command",
                hint="write it on one line, in quotes",
            )

    def _parameters(self, found: object, where: tuple[str, ...]) -> dict[str, Parameter]:
        where = (*where, "parameters")
        if found is None:
            return {}
        if not isinstance(found, dict):
            self._add(
                ERROR,
                "bad-parameters",
                "`parameters` wants a map of names",
                *where,
                hint="parameters:\n  alpha: {type: float, default: 0.5}",
            )
            return {}
        return {name: self._parameter(name, value, where) for name, value in found.items()}

    def _parameter(self, name: str, value: object, parent: tuple[str, ...]) -> Parameter:
        where = (*parent, name)
        line = self._document.mark(*where)[0]
        if value is None:
            self._add(
                WARNING,
                "no-type",
                f"the parameter `{name}` says nothing of itself; it is taken as a string",
                *where,
                hint=f"write `{name}: string`",
            )
            return Parameter(name, line=line)
        if isinstance(value, str):
            return Parameter(name, self._type(value, *where), line=line)
        if not isinstance(value, dict):
            written = self._document.written(*where) or "..."
            self._add(
                ERROR,
                "bad-parameter",
                f"the parameter `{name}` wants a type or a map, not a value",
                *where,
                hint=f"{name}: {{default: {written}}}",
            )
            return Parameter(name, line=line)
        lost = self._unknown(value, _PARAMETER, *where)
        kind = value.get("type")
        default = value.get("default")
        if isinstance(kind, list) and len(kind) == 1:  # `type: list` gone wrong: [str]
            kind = f"list[{kind[0]}]"
        if kind is not None and not isinstance(kind, str):
            self._add(
                ERROR,
                "bad-type",
                f"the type of the parameter `{name}` wants to be a word",
                *where,
                "type",
                hint=f"one of {', '.join(TYPES)}",
            )
            kind = None
        return Parameter(
            name,
            self._type(kind, *where, "type") if kind is not None else "string",
            text(default) if default is not None else None,
            default is None,
            text(value.get("description") or "").strip(),
            line,
            lost if default is None else "",
        )

    def _type(self, kind: str, *where: str) -> str:
        lower = kind.strip().lower()
        if kind in TYPES:
            return kind
        if re.fullmatch(r"list\[[\w\[\], ]*\]", lower) or (lower in TYPES and lower not in ("path", "uri")):
            return lower
        meant = similar(kind, TYPES)
        hint = f"did you mean `{meant}`?" if meant else f"known types: {', '.join(TYPES)}"
        self._add(WARNING, "unknown-type", f"`{kind}` is not a type; its values are taken as text", *where, hint=hint)
        return "string"

    # --- keys nobody reads

    def _unknown(self, data: dict[str, object], known: tuple[str, ...], *where: str) -> str:
        """Warn of keys nobody reads; say in a phrase which of them was meant to be ``default``, if one was."""
        lost = ""
        for key, value in data.items():
            if key in known:
                continue
            meant, fix = _meant(key, value, known, data)
            line = self._document.mark(*where, key)[0]
            if meant == "default":
                lost = f"line {line} has `{key}`, did you mean `{fix}`?"
            hint = f"did you mean `{fix}`?" if fix else f"known here: {', '.join(known)}"
            self._add(WARNING, "unknown-key", f"`{key}` is not known here and is ignored", *where, key, hint=hint)
        return lost


def _meant(key: str, value: object, known: tuple[str, ...], data: dict[str, object]) -> tuple[str | None, str]:
    """The known key that ``key`` was meant to be, and how to write it."""
    before, colon, after = key.partition(":")
    if colon and value is None and before in known:
        return before, f"{before}: {after}"  # `default:10` without a space
    if "type" in known and "type" not in data and key.lower() in TYPES:
        return "type", f"type: {key}"  # `{int: int}`
    meant = similar(key, [word for word in known if word not in data])
    return meant, meant or ""
