"""The exact set of packages of an environment, as a file that builds the same again."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

from mlcli.envs import freeze, installer
from mlcli.errors import EnvError, InvalidInput
from mlcli.projects.requirements import redact

if TYPE_CHECKING:
    from mlcli.envs.env import Env
    from mlcli.projects.envfile import EnvSpec

FORMATS = ("requirements", "pylock")
_PLACES = ("--index-url", "-i ", "--extra-index-url", "--find-links", "-f ", "--no-index")


def lock(spec: EnvSpec, env: Env, form: str) -> str:
    """What is installed in ``env``: requirement lines, or a pylock.toml (PEP 751) with the hash of every file.

    The first is read from the environment; for the second uv asks the index where the files are.
    """
    if form not in FORMATS:
        raise InvalidInput(f"there is no format `{form}`", hint=f"known: {', '.join(FORMATS)}")
    packages = freeze(env)
    head = f"# Python {env.version}; made by mlcli env lock\n"
    if form == "requirements":
        return head + packages
    return head + _pylock(spec, env, packages)


def _pylock(spec: EnvSpec, env: Env, packages: str) -> str:
    from mlcli.envs.managers import placed

    options = [placed(item, spec.folder) for item in spec.dependencies if item.text.startswith(_PLACES)]
    with tempfile.TemporaryDirectory(prefix="mlcli-lock-") as folder:
        source = os.path.join(folder, "requirements.txt")
        with open(source, "w", encoding="utf-8") as file:
            file.write("\n".join([*options, packages]))
        command = [
            installer.uv(),
            "pip",
            "compile",
            "--quiet",
            "--no-header",
            "--no-deps",
            "--no-annotate",
            "--python",
            env.python,
        ]
        done = subprocess.run(
            [*command, "--format", "pylock.toml", source],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=installer.environ(),
            check=False,
        )
    if done.returncode != 0:
        tail = redact(done.stderr.strip())
        raise EnvError(
            "uv could not make a pylock.toml",
            tail=tail,
            hint=f"{installer.explain(tail, spec.dependencies, env.version)}; --format requirements needs no index",
        )
    return redact(done.stdout)
