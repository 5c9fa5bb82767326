"""`import mlcli`: what it names, what it costs, and on which interpreters it works."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlcli

PACKAGE = Path(mlcli.__file__).parent
INTERPRETERS = sorted(Path(os.path.expanduser("~"), ".pyenv", "versions").glob("3.*/bin/python3"))
TRACKER = (
    "artifacts autolog.calls autolog.lightgbm autolog.lightning autolog.sklearn autolog.xgboost client config content context entities errors exceptions fluent journal lightgbm live locks models"
    " models.allowed models.flavors models.inspection models.lightgbm models.loading models.mlmodel models.pickles"
    " models.program models.pyfunc models.python models.python_model models.pytorch models.saving models.signature"
    " models.skops models.sklearn models.sound models.trust models.xgboost pyfunc pytorch registry rights rules sklearn"
    " store tracking xgboost"
).split()


def modules_after(code: str) -> set[str]:
    """The modules that ``code`` imports in a bare interpreter."""
    lines = [
        "import sys",
        f"sys.path.insert(0, {str(PACKAGE.parent)!r})",
        "before = set(sys.modules)",
        code,
        "print(*(set(sys.modules) - before))",
    ]
    done = subprocess.run([sys.executable, "-S", "-c", "\n".join(lines)], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_mlcli_imports_nothing_else() -> None:
    assert modules_after("import mlcli") == {"mlcli", "mlcli._version", "__future__"}


def test_logging_imports_the_standard_library_alone() -> None:
    roots = {
        name.partition(".")[0]
        for name in modules_after("import mlcli; mlcli.log_metric, mlcli.Client, mlcli.sklearn.log_model")
    }
    assert roots - sys.stdlib_module_names - {"mlcli"} == set()
    assert (
        roots & {"asyncio", "logging", "uuid", "pathlib", "subprocess", "dataclasses", "http", "urllib", "email"}
        == set()
    )


def test_importing_the_flavor_does_not_import_its_library() -> None:
    assert "sklearn" not in modules_after("import mlcli.sklearn")


def test_the_table_of_names_and_the_imports_for_editors_are_equal() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    for_editors = {alias.asname: node.module for node in block.body for alias in node.names}
    in_table = {**dict.fromkeys(mlcli._MODULES, "mlcli"), **mlcli._HOMES}
    assert for_editors == in_table


def test_every_public_name_is_there_and_documented_by_dir() -> None:
    for name in (*mlcli._MODULES, *mlcli._HOMES):
        assert getattr(mlcli, name) is not None
        assert name in dir(mlcli)
    with pytest.raises(AttributeError, match="no_such_name"):
        mlcli.no_such_name  # noqa: B018 - the access is what is tested


def test_the_client_is_known_by_both_its_names() -> None:
    assert mlcli.MlflowClient is mlcli.Client


def test_a_script_finds_things_in_mlflows_places() -> None:
    assert mlcli.tracking.MlflowClient is mlcli.client.MlflowClient is mlcli.Client
    assert mlcli.exceptions.MlflowException is mlcli.MlflowException is mlcli.MlcliError
    with pytest.raises(mlcli.exceptions.MlflowException):
        mlcli.entities.RunStatus.from_string("DONE")
    assert mlcli.entities.RunStatus.to_string(mlcli.entities.RunStatus.FINISHED) == "FINISHED"
    assert mlcli.entities.ViewType.from_string("deleted_only") == mlcli.entities.ViewType.DELETED_ONLY
    with pytest.raises(mlcli.exceptions.MlflowException):
        mlcli.entities.ViewType.from_string("some")


def test_what_a_tutorial_imports_is_there() -> None:
    from mlcli import MlflowClient, artifacts
    from mlcli.entities import ViewType

    assert ViewType.ACTIVE_ONLY
    assert callable(artifacts.download_artifacts)
    assert callable(MlflowClient().search_runs)


@pytest.mark.parametrize("name", sorted(mlcli._HOMES))
def test_every_function_says_what_it_takes(name: str) -> None:
    thing = getattr(mlcli, name)
    for parameter in inspect.signature(thing).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        ), f"{name}({parameter.name})"


SCRIPT = """
import json, os, sys
import mlcli
import mlcli.sklearn
{imports}
mlcli.set_experiment("old and new")
with mlcli.start_run(run_name="r") as run:
    mlcli.log_params({{"a": 1}})
    mlcli.log_metric("m", float("nan"), step=1)
    mlcli.log_metrics({{"x": 1.5}})
    mlcli.log_dict({{"k": [1, {{"ü": None}}]}}, "d.yaml")
    mlcli.log_artifacts(os.path.dirname(mlcli.__file__) + "/store/migrations", "sql")
    mlcli.log_table({{"a": [1]}}, "t.json")
    if hasattr(os, "fork"):
        pid = os.fork()
        if pid == 0:
            mlcli.log_metric("child", 1)
            os._exit(0)
        os.waitpid(pid, 0)
client = mlcli.Client()
found = client.search_runs(mlcli.get_experiment_by_name("old and new").experiment_id, "params.a = '1' and metrics.x > 1")[0]
print(json.dumps([found.info.status, sorted(found.data.metrics), found.data.params, [f.path for f in client.list_artifacts(run.info.run_id)]]))
"""


@pytest.mark.parametrize("python", INTERPRETERS, ids=lambda path: path.parent.parent.name)
def test_the_tracker_works_in_the_interpreter(python: Path, tmp_path: Path) -> None:
    """As `mlcli run` does it: a folder with nothing but a link to the package on PYTHONPATH."""
    version = tuple(map(int, python.parent.parent.name.split(".")[:2]))
    if version < (3, 8):
        pytest.skip("older than what mlcli runs on")
    (tmp_path / "expose").mkdir()
    os.symlink(PACKAGE, tmp_path / "expose" / "mlcli")
    code = SCRIPT.format(imports="\n".join(f"import mlcli.{name}" for name in TRACKER))
    done = subprocess.run(
        [str(python), "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "expose"), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["FINISHED", ["child", "m", "x"], {"a": "1"}, ["d.yaml", "sql", "t.json"]]
