"""What a project needs installed: ``python_env.yaml`` or ``conda.yaml``, as real people write them, read into an EnvSpec.

Nothing is installed or looked up here. What cannot be used is a problem with its file and line; ``check`` raises the first.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from mlcli.errors import ProjectError
from mlcli.projects import pythonspec, yamlfile
from mlcli.projects.problem import ERROR, WARNING, Problem, raise_first, similar
from mlcli.projects.requirements import Reader, Requirement, logical_lines, notes, without_comment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlcli.projects.docker import DockerSpec

PYTHON_FILE = "python_env.yaml"
CONDA_FILES = ("conda.yaml", "conda.yml", "environment.yml", "environment.yaml")
_PYTHON_KEYS = ("python", "build_dependencies", "dependencies")
_CONDA_KEYS = ("name", "channels", "dependencies", "prefix", "variables", "platforms", "pip")


class EnvSpec(NamedTuple):
    """What must be there before a project's command can run; equal specs share an environment."""

    kind: str  # python, conda, docker or none
    folder: str  # relative paths and `-e .` are seen from here
    file: str | None = None
    python: str | None = None
    python_line: int | None = None
    build_dependencies: tuple[Requirement, ...] = ()
    dependencies: tuple[Requirement, ...] = ()
    constraints: tuple[Requirement, ...] = ()
    conda_file: str | None = None
    untranslated: tuple[str, ...] = ()
    docker: DockerSpec | None = None
    problems: tuple[Problem, ...] = ()

    def check(self) -> None:
        """Raise ProjectError for the first thing that makes this environment impossible to build."""
        raise_first(self.problems)


def read_env(
    folder: str, *, kind: str | None = None, file: str | None = None, docker: DockerSpec | None = None
) -> EnvSpec:
    """Read the environment of the project in ``folder``.

    ``kind`` and ``file`` are what MLproject says (``python_env`` -> python, ``conda_env`` -> conda); without them the
    files that MLflow would find by itself are looked for, then there is nothing to install.
    """
    folder = os.path.abspath(folder)
    if docker is not None:
        return EnvSpec("docker", folder, docker=docker)
    if kind in ("python", "conda"):
        file = file or (PYTHON_FILE if kind == "python" else CONDA_FILES[0])
        return _read(folder, kind, file)
    if os.path.exists(os.path.join(folder, PYTHON_FILE)):
        return _read(folder, "python", PYTHON_FILE)
    if os.path.exists(os.path.join(folder, CONDA_FILES[0])):
        return _read(folder, "conda", CONDA_FILES[0])
    return EnvSpec("none", folder)


def _read(folder: str, kind: str, file: str) -> EnvSpec:
    path = os.path.join(folder, file)
    if not os.path.exists(path):
        return EnvSpec(kind, folder, file, problems=(_missing(folder, kind, file),))
    try:
        document = _document(path, file)
    except ProjectError as error:
        problem = Problem(ERROR, "env-file", error.message, error.file, error.line, error.column, error.hint)
        return EnvSpec(kind, folder, file, problems=(problem,))
    return _EnvFile(folder, kind, file, document).spec()


def _missing(folder: str, kind: str, file: str) -> Problem:
    wanted = {PYTHON_FILE: None, **dict.fromkeys(CONDA_FILES)} if kind == "python" else dict.fromkeys(CONDA_FILES)
    there = [name for name in (*wanted, "requirements.txt") if os.path.exists(os.path.join(folder, name))]
    hint = (
        f"there is {' and '.join(there)}; name it in MLproject"
        if there
        else "create it, or remove the line that names it"
    )
    if there == ["requirements.txt"]:
        hint = (
            f"there is a requirements.txt: create {file} with the lines `dependencies:` and `  - -r requirements.txt`"
        )
    return Problem(ERROR, "missing-env-file", f"the project's environment file `{file}` is not there", file, hint=hint)


def _document(path: str, file: str) -> yamlfile.Document:
    try:
        return yamlfile.read(path, file=file)
    except ProjectError:
        problems: list[Problem] = []
        text = yamlfile.read_text(path, problems, file=file)
        try:
            data = json.loads(text)  # JSON indented by tabs is fine JSON and no YAML
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise
        return yamlfile.parse(json.dumps(data), file, problems)


class _EnvFile:
    """One file on its way to a spec; collects as it goes."""

    def __init__(self, folder: str, kind: str, file: str, document: yamlfile.Document) -> None:
        self.folder, self.kind, self.file, self.document = folder, kind, file, document
        self.problems = list(document.problems)
        self.path: tuple[str, ...] = ()  # where in the document the environment stands
        self.conda_file: str | None = None
        self.untranslated: list[str] = []
        self.first_untranslated: tuple[str | int, ...] = ()
        self.python: str | None = None
        self.python_line: int | None = None
        self.build = Reader(folder, self.problems)
        self.run = Reader(folder, self.problems)

    def spec(self) -> EnvSpec:
        data = self._mapping()
        if data is not None and self._is_conda(data):
            self._conda(data)
        elif data is not None:
            self._python(data)
        self.problems += notes([*self.build.requirements, *self.run.requirements])
        kind = "conda" if self.conda_file else "python"
        return EnvSpec(
            kind,
            self.folder,
            self.file,
            self.python,
            self.python_line,
            tuple(self.build.requirements),
            tuple(self.run.requirements),
            (*self.build.constraints, *self.run.constraints),
            self.conda_file,
            tuple(self.untranslated),
            None,
            tuple(self.problems),
        )

    # -- what kind of file it is

    def _mapping(self) -> dict[str, object] | None:
        data = self.document.data
        if data is None or data == {}:
            self._warn(
                "env-file-empty",
                "this file is empty: nothing will be installed",
                hint="list packages under `dependencies:`",
            )
            return None
        if isinstance(data, list) and all(isinstance(item, str) for item in data):
            self._warn(
                "dependencies-unnamed",
                "this file is a bare list; read as `dependencies:`",
                hint="put `dependencies:` above it",
            )
            self._lines(self.run, (), data)
            return None
        if not isinstance(data, dict):
            self._error("env-file", "this file is no map of keys to values", hint="begin with `dependencies:`")
            return None
        for wrapper in ("python_env", "conda_env", "environment"):
            inner = data.get(wrapper)
            if isinstance(inner, dict) and "dependencies" not in data:
                self._warn(
                    "env-nested",
                    f"everything stands under `{wrapper}:`; read as if it stood at the top",
                    wrapper,
                    hint=f"remove the line `{wrapper}:` and unindent the rest",
                )
                self.path = (wrapper,)
                return inner
        return data

    def _is_conda(self, data: dict[str, object]) -> bool:
        items = data.get("dependencies")
        listed = items if isinstance(items, list) else []
        pins_python = any(isinstance(item, str) and re.match(r"python\s*([=<>!~ ]|$)", item) for item in listed)
        conda_like = (
            "channels" in data or pins_python or any(isinstance(item, dict) and "pip" in item for item in listed)
        )
        if self.kind == "conda":
            if "build_dependencies" in data or ("python" in data and not conda_like):
                self._warn(
                    "python-env-file",
                    "a python_env file where MLproject says `conda_env`; read as a python_env file",
                    hint="write `python_env:` in MLproject",
                )
                return False
            return True
        if conda_like:
            self._warn(
                "conda-file",
                "this is a conda file where a python_env file is expected; read as a conda file",
                hint="write `conda_env:` in MLproject",
            )
        return conda_like

    # -- python_env.yaml

    def _python(self, data: dict[str, object]) -> None:
        self._keys(data, _PYTHON_KEYS)
        if data.get("python") is not None:
            self._python_version(data["python"])
        for key, reader in (("build_dependencies", self.build), ("dependencies", self.run)):
            self._dependencies(reader, key, data.get(key))

    def _python_version(self, value: object) -> None:
        self.python_line = self.document.mark(*self.path, "python")[0]
        written = self.document.written(*self.path, "python")
        if written is None:
            self._error(
                "python-version", '`python` must be a version such as "3.10"', "python", hint='write `python: "3.10"`'
            )
            return
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            self._warn(
                "python-unquoted",
                f"YAML reads `{written}` as the number {value}; taken as Python {written}, as written",
                "python",
                hint=f'put it in quotes: `python: "{written}"`',
            )
        self._set_python(written, "python")

    def _set_python(self, text: str, *keys: str | int) -> None:
        self.python = text.strip()
        if pythonspec.parse(self.python) is None:
            self._error(
                "python-version",
                f"`{self.python}` is no Python version",
                *keys,
                hint='write a version ("3.10", "3.9.13") or a range (">=3.9,<3.12")',
            )

    def _dependencies(self, reader: Reader, key: str, value: object) -> None:
        if isinstance(value, str):
            self._warn(
                "dependencies-string",
                f"`{key}` is a text where a list is expected; its lines were read",
                key,
                hint="begin each line below it with `- `",
            )
            value = value.splitlines()
        if value is None:
            return
        if not isinstance(value, list):
            self._error("dependencies", f"`{key}` must be a list", key, hint="begin each line below it with `- `")
            return
        self._lines(reader, (key,), value)

    def _lines(self, reader: Reader, keys: tuple[str | int, ...], items: Sequence[object]) -> None:
        for index, item in enumerate(items):
            where = (*self.path, *keys, index)
            line = self.document.value_mark(*where)[0]
            if isinstance(item, str):
                base = os.path.dirname(os.path.join(self.folder, self.file))
                for offset, text in logical_lines(item):
                    reader.add(text, self.file, None if line is None else line + offset - 1, base=base)
            elif isinstance(item, dict) and set(item) == {"pip"} and isinstance(item["pip"], list):
                self._lines(reader, (*keys, index, "pip"), item["pip"])
            elif item is not None:
                written = self.document.written(*where) or str(item)
                self.problems.append(
                    Problem(
                        ERROR,
                        "dependencies",
                        f"`{written}` is no requirement",
                        self.file,
                        line,
                        None,
                        "write `name==1.2.3`; a text that holds `: ` needs quotes",
                    )
                )

    # -- conda.yaml

    def _conda(self, data: dict[str, object]) -> None:
        self.conda_file = self.file
        self._keys(data, _CONDA_KEYS, lenient=True)
        self._channels(data.get("channels"))
        if data.get("variables"):
            self._warn(
                "conda-variables",
                "`variables` are set by conda only",
                "variables",
                hint="set them in the command: `VAR=x python ...`",
            )
        items = data.get("dependencies")
        if items is None:
            self._warn("env-file-empty", "no `dependencies`: nothing will be installed")
        elif not isinstance(items, list):
            self._error(
                "dependencies",
                "`dependencies` must be a list",
                "dependencies",
                hint="begin each line below it with `- `",
            )
        else:
            for index, item in enumerate(items):
                self._conda_item(index, item)
        pip = data.get("pip")
        if isinstance(pip, list):  # conda ignores it there; whoever wrote it wants the packages
            self._warn(
                "conda-pip",
                "`pip:` stands beside `dependencies:`, where conda does not see it; it was read",
                "pip",
                hint="put it under `dependencies:` as `- pip:`",
            )
            self._lines(self.run, ("pip",), pip)
        if self.untranslated:
            self._warn(
                "conda-untranslated",
                f"only conda can install {', '.join(f'`{name}`' for name in self.untranslated)}",
                *self.first_untranslated,
                hint="install what the project needs of it by other means, or use --env-manager=conda",
            )

    def _channels(self, value: object) -> None:
        for index, channel in enumerate(value if isinstance(value, list) else []):
            if channel == "default":
                line, column = self.document.value_mark(*self.path, "channels", index)
                self.problems.append(
                    Problem(
                        WARNING,
                        "conda-channel",
                        "there is no channel `default`",
                        self.file,
                        line,
                        column,
                        "write `defaults`",
                    )
                )

    def _conda_item(self, index: int, item: object) -> None:
        where = ("dependencies", index)
        if isinstance(item, dict):
            for key, value in item.items():
                if key == "pip" and isinstance(value, (list, str)):
                    self._lines(self.run, (*where, "pip"), value if isinstance(value, list) else value.splitlines())
                elif value is not None:
                    self._error(
                        "dependencies",
                        f"`{key}:` is nothing that conda knows here",
                        *where,
                        hint="`- pip:` is the only list inside the list",
                    )
            return
        if item is None:
            return
        line = self.document.value_mark(*self.path, *where)[0]
        text = without_comment(self.document.written(*self.path, *where) or str(item))
        from mlcli.projects import conda  # its tables are of use to conda files alone

        found = conda.translate(text)
        if found.version_lost and found.kind in ("python", "build", "package"):
            self._warn(
                "conda-version", f"the version in `{text}` cannot be said in pip's words; any version is taken", *where
            )
        match found.kind:
            case "python":
                self.python_line = line
                if found.requirement:
                    self._set_python(found.requirement, *where)
            case "build":
                self.build.add(found.requirement, self.file, line)
            case "package":
                self.run.add(found.requirement, self.file, line)
            case "native":
                self.first_untranslated = self.first_untranslated or where
                self.untranslated.append(text)
            case "unreadable":
                self._error(
                    "dependencies",
                    f"`{text}` is nothing that conda understands",
                    *where,
                    hint="write `name=1.2.3` or `name`",
                )

    # -- problems

    def _keys(self, data: dict[str, object], known: tuple[str, ...], *, lenient: bool = False) -> None:
        for key in data:
            if key in known:
                continue
            meant = similar(key, known)
            if meant is not None and meant not in data:  # MLflow stops here, too: nothing would be installed
                self._error("unknown-key", f"unknown key `{key}`", key, hint=f"did you mean `{meant}`?")
            elif not lenient or meant is not None:
                self._warn("unknown-key", f"unknown key `{key}`; ignored", key, hint=f"known here: {', '.join(known)}")

    def _warn(self, code: str, message: str, *keys: str | int, hint: str = "") -> None:
        self.problems.append(self.document.problem(WARNING, code, message, *self.path, *keys, hint=hint))

    def _error(self, code: str, message: str, *keys: str | int, hint: str = "") -> None:
        self.problems.append(self.document.problem(ERROR, code, message, *self.path, *keys, hint=hint))
