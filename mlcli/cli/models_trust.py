"""`mlcli models inspect` and `mlcli models trust`: what is in a model, and which ones may run code while they are loaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, List

import typer

from mlcli.cli import options, render
from mlcli.models import trust

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mlcli.models.inspection import Inspection
    from mlcli.models.trust import Note

SHORT_DIGEST = 19  # sha256: and twelve digits
Uri = Annotated[
    str,
    typer.Argument(
        metavar="URI", help="runs:/RUN/PATH, a folder, or NAME/VERSION or NAME@ALIAS, with models:/ before it or not."
    ),
]
trust_app = options.group("Say which models may run code when loaded.")
types_app = options.group("Types that any model may use beside those of scikit-learn.")
trust_app.add_typer(types_app, name="types")


def register(app: typer.Typer) -> None:
    """Make these commands of `mlcli models`."""
    app.command()(inspect)
    app.add_typer(trust_app, name="trust")


def inspect(uri: Uri, as_json: options.Json = False) -> None:
    """Show what is in a model; nothing in it is run.

    And whether it would load without being trusted.
    The files are held against the digests in its MLmodel. What the model says of itself (its run, data, scores) is shown
    as it says it.
    """
    from mlcli.models.inspection import inspect as look
    from mlcli.models.loading import whole_uri

    found = look(whole_uri(uri))
    if as_json:
        render.emit_json(found.to_dictionary())
    elif render.on_terminal():
        _to_eyes(found)
    else:
        render.fields(_pairs(found))


def _pairs(found: Inspection) -> Iterable[tuple[str, object]]:
    """Everything as name and value."""
    yield from (("uri", found.uri), ("loads", found.loads), ("trusted", found.trusted), ("digest", found.digest))
    yield from (("reason", reason) for reason in found.reasons)
    yield "size_bytes", found.size
    yield from ((f"made.{key}", _told(value)) for key, value in found.made.items())
    for name, flavor in found.flavors.items():
        yield from ((f"flavors.{name}.{key}", _told(value)) for key, value in flavor.items())
    for part, items in (found.signature or {}).items():
        yield from ((f"signature.{part}", _column(item)) for item in items or ())
    yield from (("requirement", line) for line in found.requirements)
    yield from ((f"file.{file.state}", file.path) for file in found.files)
    yield from (("name", name) for name in found.names)


def _to_eyes(found: Inspection) -> None:
    for line in _verdict(found):
        render.emit(line)
    made = found.made
    render.fields(
        [
            ("digest", found.digest),
            ("made", made.get("time")),
            ("by run", made.get("run_id")),
            ("size", render.size(found.size)),
            *((name, _flavor(flavor)) for name, flavor in found.flavors.items()),
        ]
    )
    _section(
        "data", [f"{item.get('name')}  {item.get('digest')}" for item in made.get("data", ()) if isinstance(item, dict)]
    )
    scores = made.get("scores")
    _section(
        "scores",
        [f"{key}  {render.number(value)}" for key, value in scores.items()] if isinstance(scores, dict) else [],
    )
    for part, items in (found.signature or {}).items():
        _section(part, [_column(item) for item in items or ()])
    _section("requirements", found.requirements)
    render.heading("files")
    files = [{"path": file.path, "size": file.size, "digest": file.state} for file in found.files]
    columns = [
        render.Column("path", least=12, keep_end=True),
        render.Column("size", show=render.size, right=True),
        render.Column("digest", style=lambda value: "red" if value in ("changed", "missing") else ""),
    ]
    for line in render.table(files, columns, render.terminal_width()):
        render.emit(line)
    _section("names in its files", _by_module(found.names))


def _verdict(found: Inspection) -> Iterable[str]:
    if not found.reasons:
        yield render.styled("loads without trust: nothing in it can run code", "bold green")
    elif found.trusted is not None:
        yield render.styled(f"loads: {found.trusted}", "bold green")
    else:
        yield render.styled("does not load without trust:", "bold red")
    for reason in found.reasons:
        yield f"  {render.plain(reason)}"


def _section(title: str, lines: Sequence[str]) -> None:
    if lines:
        render.heading(title)
        for line in lines:
            render.emit(render.plain(line))


def _by_module(names: Sequence[str]) -> list[str]:
    """The names of each module on one line."""
    found: dict[str, list[str]] = {}
    for name in names:
        module, _, last = name.rpartition(".")
        found.setdefault(module, []).append(last)
    return [f"{module}: {', '.join(found[module])}" for module in sorted(found)]


def _flavor(flavor: Mapping[str, Any]) -> str:
    wanted = ("serialization_format", "model_class", "loader_module", "predict_fn", "python_version", "code")
    versions = [key for key in flavor if re.fullmatch(r"\w+_version", key) and key not in wanted]
    return ", ".join(f"{key.replace('_', ' ')} {_told(flavor[key])}" for key in (*wanted, *versions) if key in flavor)


def _column(item: Any) -> str:
    """One input, output or param of a signature on one line."""
    if not isinstance(item, dict):
        return _told(item)
    spec = item.get("tensor-spec")
    kind = f"{spec.get('dtype')} {spec.get('shape')}" if isinstance(spec, dict) else str(item.get("type"))
    name = f"{item['name']}: " if item.get("name") is not None else ""
    default = f" = {item['default']}" if "default" in item else ""
    return f"{name}{kind}{default}{'' if item.get('required', True) else ', may be missing'}"


def _told(value: object) -> str:
    if isinstance(value, (dict, list)):
        import json

        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


# -- trust


@trust_app.command()
def add(uri: Uri, as_json: options.Json = False) -> None:
    """Let this very model run code while it is loaded, from now on, for you; by its digest, so wherever it lies.

    `mlcli models inspect URI` shows before what that is. A change of any of its files ends it.
    """
    from mlcli.models.inspection import inspect as look
    from mlcli.models.loading import whole_uri

    if re.match(r"sha256:[0-9a-f]{64}\Z", uri):
        digest, about = uri, ""
    else:
        uri = whole_uri(uri)
        found = look(uri)
        digest, about = found.digest, uri
        for reason in found.reasons:
            render.note(f"it may from now on do this: {reason}")
        if not found.reasons:
            render.note("it would have loaded without that: nothing in it can run code")
    note = trust.add(digest, about)
    render.emit_json(_row(note)) if as_json else render.emit(note.what)


@trust_app.command("list")
def list_notes(
    everything: Annotated[bool, typer.Option("--all", help="Also the models that you have logged yourself.")] = False,
    as_json: options.Json = False,
) -> None:
    """List what you trust."""
    notes = [note for note in trust.notes() if everything or note.kind != trust.LOGGED]
    short = len({note.what[:SHORT_DIGEST] for note in notes}) == len({note.what for note in notes})
    render.records(
        [_row(note) for note in notes],
        [
            render.Column("kind"),
            render.Column(
                "what",
                show=lambda what: what[:SHORT_DIGEST] if short and what.startswith("sha256:") else str(what),
                least=SHORT_DIGEST,
            ),
            render.Column("about", least=12, keep_end=True),
            render.Column("time", show=render.ago, optional=1, pipe=render.iso_time),
        ],
        as_json=as_json,
        empty="you have added nothing; what you log yourself loads without that (--all lists it)",
    )


@trust_app.command()
def remove(
    what: Annotated[str, typer.Argument(metavar="DIGEST|TYPE|URI", help="As `list` shows it; the beginning will do.")],
) -> None:
    """Take back what was added; a model that you logged yourself is forgotten too."""
    for note in trust.remove(what):
        render.emit(note.what)


@types_app.command("add")
def add_types(
    names: Annotated[List[str], typer.Argument(metavar="TYPE...", help="With its module: my_package.module.Thing.")],
) -> None:
    """Let any model use a type or function. A pickle may call it with what it likes: add none that does more than hold."""
    for name in names:
        render.emit(trust.add_type(name).what)


@types_app.command("list")
def list_types(as_json: options.Json = False) -> None:
    """List the types that you have added."""
    names = sorted(trust.types())
    render.records([{"type": name} for name in names], [render.Column("type")], as_json=as_json, objects=names)


@types_app.command("remove")
def remove_types(names: Annotated[List[str], typer.Argument(metavar="TYPE...")]) -> None:
    """Take types back."""
    for name in names:
        for note in trust.remove(name):
            render.emit(note.what)


def _row(note: Note) -> dict[str, object]:
    return note._asdict()
