"""An evaluation in the model's own environment: a child process there does it and tells here how it goes.

The child (this module's ``main``) gets the words of the command line as JSON on stdin and writes JSON lines to stdout:
``{"progress": [done, total]}``, ``note``, ``warn``, ``started``, and at the end ``done`` with ``page``, or ``error``.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Dict, Mapping, Tuple

from mlcli.errors import InvalidInput, MlcliError
from mlcli.evaluation.offline import Listener

NEEDED = ("pandas", "scikit-learn")


def evaluate(given: Mapping[str, Any], listener: Listener) -> Tuple[Dict[str, Any], str]:
    """Evaluate where the model is at home; gives the report and its page."""
    import os
    import subprocess

    from mlcli import artifacts, envs
    from mlcli.projects.envfile import read_env
    from mlcli.projects.requirements import Requirement
    from mlcli.store import store_root
    from mlcli.submit import login

    folder = artifacts.resolve(given["model"])
    if not os.path.isfile(os.path.join(folder, "python_env.yaml")):
        raise InvalidInput(f"{given['model']} does not say what environment it needs", hint="--env-manager local")
    spec = read_env(folder, kind="python")
    named = {item.name for item in spec.dependencies}
    missing = tuple([Requirement(name, "an evaluation") for name in NEEDED if name not in named])
    spec = spec._replace(dependencies=spec.dependencies + missing)
    env = envs.ensure(spec, given["env_manager"], project=given["model"], progress=listener.note)
    for note in env.notes:
        listener.note(note)
    root = store_root(None)
    variables = {**envs.variables(env, os.environ), **login(root), "MLCLI_TRACKING_URI": root}
    with envs.in_use(env), subprocess.Popen(
        [str(env.python), "-m", "mlcli.evaluation.elsewhere"],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    ) as child:
        try:
            return _followed(child, given, listener)
        except BaseException:
            child.terminate()
            raise


def _followed(child: Any, given: Mapping[str, Any], listener: Listener) -> Tuple[Dict[str, Any], str]:
    child.stdin.write(json.dumps({**given, "env_manager": None}))
    child.stdin.close()
    for line in child.stdout:
        told = json.loads(line)
        if "done" in told:
            return told["done"], told["page"]
        if "error" in told:
            error = MlcliError(told["error"], hint=told["hint"])
            error.exit_code = told["exit_code"]
            raise error
        if "progress" in told:
            listener.progress(*told["progress"])
        for name, hear in (("note", listener.note), ("warn", listener.warn), ("started", listener.started)):
            if name in told:
                hear(told[name])
    raise MlcliError(f"the evaluation in the model's environment ended with exit code {child.wait()}")


def main() -> None:
    """The child's side."""
    from mlcli.evaluation import offline, page, words

    given = json.load(sys.stdin)
    out = sys.stdout
    sys.stdout = sys.stderr  # what a model prints is no line of ours

    def say(**told: Any) -> None:
        out.write(json.dumps(told) + "\n")
        out.flush()

    listener = Listener(
        progress=lambda done, total: say(progress=[done, total]),
        note=lambda text: say(note=text),
        warn=lambda text: say(warn=text),
        started=lambda run_id: say(started=run_id),
    )
    try:
        done = offline.evaluate(words.request_of(given), listener)
    except MlcliError as error:
        say(error=error.message, hint=error.hint, exit_code=error.exit_code)
        return
    say(done=done.report, page=page.html(done.report, done.curves))


if __name__ == "__main__":
    main()
