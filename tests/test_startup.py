"""What must stay true of start-up and of the floors: which modules are imported, and that imports only run down."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mlcli.cli import COMMANDS, MODULES
from mlcli.store import open_store

PACKAGE = Path(__file__).parent.parent / "mlcli"

# Each of these takes longer to import than a command may take altogether, or belongs to a few commands only.
HEAVY = frozenset(
    "numpy pandas sklearn skops matplotlib sqlalchemy psycopg pydantic starlette uvicorn jinja2 httpx requests asyncio rich"
    " yaml virtualenv logging email http importlib.metadata xml unittest".split()
)


def imported(*words: str, python: tuple[str, ...] = ("-X", "importtime")) -> set[str]:
    """The modules that a command imports, told by Python itself."""
    done = subprocess.run(
        [sys.executable, *python, *words], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def bare() -> set[str]:
    return imported("-c", "pass")


@pytest.mark.parametrize(
    "words",
    [
        ("--version",),
        ("--help",),
        ("runs", "list"),
        ("runs", "list", "--json"),
        ("experiments", "search"),
        ("runs", "--help"),
    ],
)
def test_a_light_command_imports_nothing_heavy(words):
    with open_store() as store:
        store.create_run("0")
    found = imported("-m", "mlcli", *words) - bare()
    assert "mlcli.cli" in found
    assert not HEAVY & found


@pytest.mark.parametrize("words", [("--version",), ("--help",), ()])
def test_version_and_help_need_no_parser_and_no_typing(words):
    found = imported("-m", "mlcli", *words) - bare()
    ours = {name for name in found if name.startswith("mlcli")}
    assert ours <= {"mlcli", "mlcli._version", "mlcli.cli"}
    assert not any(name == "typer" or name.startswith("typer.") for name in found)


def test_importing_mlcli_imports_nothing_else():
    found = imported("-c", "import mlcli") - bare()
    assert found <= {"mlcli", "mlcli._version", "__future__"}


def test_a_command_imports_no_other_command():
    others = {f"mlcli.cli.{MODULES.get(name, name)}" for name in COMMANDS} - {"mlcli.cli.runs"}
    assert not others & imported("-m", "mlcli", "runs", "list")


# --- floors

GROUND = {"_version", "errors", "entities", "rules", "config", "filters", "wire", "locks", "scratch", "rights"}
STORES = {"journal", "artifacts", "store", "projects", "envs", "content"}
FACES = {"cli", "server", "serving"}


def floor(module: str) -> int:
    """0 ground, 1 stores, 2 engines, 3 faces; the package itself (a table of names) stands above all."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return 4
    if parts[1] in GROUND:
        return 0
    if parts[1] in STORES:
        return 1
    return 3 if parts[1] in FACES else 2


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(("mlcli", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module, known: set[str]) -> set[str]:
    """Our own modules that a module imports at run time, anywhere in it."""
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for statement in block.body
        for node in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in known else node.module
                for alias in node.names
            }
    return {name for name in found if name == "mlcli" or name.startswith("mlcli.")}


def test_imports_only_run_down():
    trees = modules()
    wrong = [
        f"{name} (floor {floor(name)}) imports {target} (floor {floor(target)})"
        for name, tree in trees.items()
        for target in imports(tree, set(trees))
        if floor(target) > floor(name)
    ]
    assert wrong == []


# What runs inside other people's environments, whatever is or is not installed there.
TRACKER = GROUND | {
    "journal",
    "live",
    "fluent",
    "client",
    "artifacts",
    "autolog",
    "content",
    "evaluation",
    "models",
    "registry",
    "sklearn",
    "store",
    "submit",
}


def test_the_tracker_needs_only_the_standard_library():
    """Libraries that a model is about are imported where it is saved or loaded, inside functions."""
    allowed = sys.stdlib_module_names | {"mlcli", "tomllib", "tomli"}
    checked = set()
    for name, tree in modules().items():
        if name.count(".") and name.split(".")[1] not in TRACKER:
            continue
        if name == "mlcli.store.postgres":  # about a driver; `open_store` reaches it for addresses of PostgreSQL only
            continue
        checked.add(name)
        found = {
            (alias.name if isinstance(node, ast.Import) else node.module or "").partition(".")[0]
            for node in tree.body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        assert found <= allowed, name
    assert {"mlcli", "mlcli.fluent", "mlcli.store.tracking", "mlcli.config"} <= checked


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_table_is_a_module_that_says_what_it_is_for(command):
    path = PACKAGE / "cli" / f"{MODULES.get(command, command)}.py"
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_every_module_opens_with_a_sentence():
    silent = [name for name, tree in modules().items() if not ast.get_docstring(tree)]
    assert silent == []
