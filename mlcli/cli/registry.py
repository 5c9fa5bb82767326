"""The commands of `mlcli models` that are about the registry: register, find, look at, name, tag, compare, copy, delete."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, List, NamedTuple, Optional, TypeVar

import typer

from mlcli import filters, registry
from mlcli.cli import completion, options, render
from mlcli.cli.portrait import SHORT_ID, environment, section
from mlcli.entities import ModelStage, Run, ViewType, all_pages
from mlcli.errors import InvalidInput, NotFound
from mlcli.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlcli.entities import ModelVersion, Page, RegisteredModel
    from mlcli.store import Store

T = TypeVar("T")

SHOWN = 20  # versions that a terminal shows of a model
COMPARED = 5

app = options.group("")  # a box for the commands: `models` takes them over
alias_app = options.group("Name versions, or take names away.")
tag_app = options.group("Set and remove tags of models and versions.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The model.", autocompletion=completion.model_names, show_default=False)
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model or a version: wine, wine/3, wine/latest, wine@champion; models:/ may stand before it.",
        autocompletion=completion.models,
        show_default=False,
    ),
]
AliasName = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, such as champion.", show_default=False)]
Tags = Annotated[
    Optional[List[str]], typer.Option("-t", "--tag", metavar="KEY=VALUE", help="Tag the version; may be repeated.")
]


# --- which one ----------------------------------------------------------------------------------------------------


class Meant(NamedTuple):
    """What a word means: a model or, where there is one, a version of it."""

    model: RegisteredModel | None
    version: ModelVersion | None

    @property
    def name(self) -> str:
        return self.version.name if self.version is not None else self.model.name if self.model is not None else ""


def meant(store: Store, word: str) -> Meant:
    """The model or the version that is meant. Raises NotFound with what resembles it."""
    text = word.removeprefix("models:/")
    if "@" in text and not set("/?") & set(text):  # a name may have an @
        found = _model(store, text)
        if found is not None:
            return Meant(found, None)
    if set("/@?") & set(text):
        uri = f"models:/{text}"
        try:
            return Meant(None, store.resolve_model_version(uri))
        except NotFound:
            name, slash, _ = text.partition("?")[0].partition("/")
            name = name if slash else name.rpartition("@")[0] or name
            if _model(store, name) is None:
                raise no_model(store, name) from None
            raise
    found = _model(store, text)
    if found is None:
        raise no_model(store, text)
    return Meant(found, None)


def one_version(store: Store, word: str) -> ModelVersion:
    found = meant(store, word)
    if found.version is None:
        raise InvalidInput(
            f"{render.plain(found.name)} is a model with versions: say which of them",
            hint=f"{found.name}/latest is the newest; `mlcli models show {found.name}` lists them",
        )
    return found.version


def _model(store: Store, name: str) -> RegisteredModel | None:
    try:
        return store.get_registered_model(name)
    except NotFound:
        return None


def no_model(store: Store, name: str) -> NotFound:
    from mlcli.cli.boundary import did_you_mean

    near = did_you_mean(name, [model.name for model in store.search_registered_models(max_results=1000)])
    return NotFound(f"there is no registered model {name!r}", hint=near or "`mlcli models list` shows what there is")


def uri_of(version: ModelVersion) -> str:
    return f"models:/{version.name}/{version.version}"


def _words(version: ModelVersion) -> str:
    return f"version {version.version} of {render.plain(version.name)}"


def _tell_made(version: ModelVersion, how: str, as_json: bool) -> None:
    """Say what was made; in a pipe stdout is the version's URI alone."""
    named = f", {_at(version.aliases)}" if version.aliases else ""
    sentence = f"{how} {_words(version)}{named}"
    if as_json:
        render.emit_json(registry.version_dictionary(version))
    elif render.on_terminal():
        render.emit(sentence)
        render.note(f"`mlcli models show {version.name}/{version.version}` shows where it came from")
    else:
        render.emit(uri_of(version))
        render.note(sentence)


def _at(words: Sequence[str]) -> str:
    """Aliases as they stand in a URI."""
    return ", ".join(f"@{word}" for word in words)


def _pairs(given: Sequence[str] | None, example: str) -> dict[str, str]:
    wrong = [pair for pair in given or () if "=" not in pair[1:]]
    if wrong:
        raise InvalidInput(f"{wrong[0]!r} is not KEY=VALUE", hint=example)
    return dict(pair.split("=", 1) for pair in given or ())


# --- making versions ----------------------------------------------------------------------------------------------


@app.command()
def register(
    uri: Annotated[
        str,
        typer.Argument(
            metavar="URI",
            help="runs:/RUN/PATH; runs:/RUN or RUN, where the run has one model; models:/NAME/VERSION; a path in a run's"
            " artifacts; `-` reads it from stdin.",
            autocompletion=completion.run_ids,
            show_default=False,
        ),
    ],
    name: Name,
    alias: Annotated[Optional[str], typer.Option("-a", "--alias", metavar="ALIAS", help="Let this name it.")] = None,
    tags: Tags = None,
    description: Annotated[str, typer.Option("--description", metavar="TEXT", help="What it is.")] = "",
    as_json: options.Json = False,
) -> None:
    """Make the next version of a model.

    The model is created with its first version. In a pipe stdout is the URI of the version alone.

    For example: mlcli runs search --best metrics.f1 | mlcli models register - wine --alias champion
    """
    if uri == "-":
        uri = sys.stdin.read().strip()
        if not uri or len(uri.splitlines()) != 1:
            raise InvalidInput(
                f"one line with a run or a URI is expected on stdin, and there are {len(uri.splitlines())}",
                hint="`mlcli runs search --best metrics.f1` prints one run",
            )
    given = _pairs(tags, "mlcli models register URI NAME --tag stage=ready")
    elsewhere = ":" in uri and not uri.startswith(("runs:", "models:"))
    with open_store(create=elsewhere) as store:  # what is here is in a store that is here
        made = registry.register(
            store, uri, name.removeprefix("models:/"), tags=given, description=description or None, alias=alias
        )
    _tell_made(made, "Registered", as_json)
    if not made.source.startswith(("runs:", "models:")):
        render.note(f"its files are elsewhere, and nobody looked whether they are there: {render.plain(made.source)}")


@app.command()
def copy(
    version: Target,
    new_name: Annotated[str, typer.Argument(metavar="NAME", help="The model to add it to.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Make a version of another model out of this one.

    The files are the same files; tags and description go along, aliases do not. The other model is created if need be.
    """
    with open_store(create=False) as store:
        found = one_version(store, version)
        made = store.copy_model_version(found.name, found.version, new_name)
    _tell_made(made, f"Copied {_words(found)} to", as_json)


# --- many models --------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    filter_string: options.Filter = "",
    order_by: options.OrderBy = None,
    max_results: options.Limit = 100,
    as_json: options.Json = False,
) -> None:
    """List registered models."""
    _list(filter_string, order_by, max_results, as_json)


@app.command()
def search(
    filter_string: Annotated[
        str, typer.Argument(metavar="FILTER", help="What they must match.", show_default=False)
    ] = "",
    versions: Annotated[bool, typer.Option("--versions", help="Search versions instead of models.")] = False,
    order_by: options.OrderBy = None,
    max_results: options.Limit = 100,
    as_json: options.Json = False,
) -> None:
    """Search models, or versions, by name, tags and times.

    For example: mlcli models search --versions "name = 'wine' and tags.stage = 'ready'"
    """
    if not versions:
        _list(filter_string, order_by, max_results, as_json)
        return
    wanted = _wanted(filter_string, filters.MODEL_VERSIONS)
    with open_store(create=False) as store:
        found, more = _first(
            max_results, lambda size, token: store.search_model_versions(wanted, size, order_by, token)
        )
    render.records(
        [_version_row(version) for version in found],
        _version_columns(found, named=True),
        as_json=as_json,
        objects=[registry.version_dictionary(version) for version in found],
        empty="no version matches; `mlcli models list` shows what there is",
    )
    _tell_more(len(found), more)


def _list(filter_string: str, order_by: Sequence[str] | None, max_results: int, as_json: bool) -> None:
    wanted = _wanted(filter_string, filters.REGISTERED_MODELS)
    with open_store(create=False) as store:
        found, more = _first(
            max_results, lambda size, token: store.search_registered_models(wanted, size, order_by, token)
        )
    rows = [
        {
            "name": model.name,
            "latest_version": max((int(version.version) for version in model.latest_versions), default=None),
            "aliases": ", ".join(f"{alias} {version}" for alias, version in model.aliases.items()),
            "last_updated_timestamp": model.last_updated_timestamp,
            "tags": ", ".join(f"{key}={value}" for key, value in sorted(model.tags.items())),
            "description": model.description,
        }
        for model in found
    ]
    render.records(
        rows,
        [
            render.Column("name", "NAME", least=12, style="bold"),
            render.Column("latest_version", "LATEST", right=True),
            render.Column("aliases", "ALIASES", least=12, style="cyan"),
            render.Column("last_updated_timestamp", "CHANGED", show=render.ago, right=True, pipe=render.iso_time),
            *([render.Column("tags", "TAGS", least=10, optional=1)] if _any(rows, "tags") else []),
            *(
                [render.Column("description", "DESCRIPTION", least=16, optional=2, style="dim")]
                if _any(rows, "description")
                else []
            ),
        ],
        as_json=as_json,
        objects=[registry.model_dictionary(model) for model in found],
        empty="no model matches; `mlcli models list` shows what there is"
        if filter_string
        else "there are no registered models yet; `mlcli models register runs:/latest NAME` makes one",
    )
    _tell_more(len(found), more)


def _any(rows: Sequence[dict[str, Any]], key: str) -> bool:
    """Whether a column is worth its place: a pipe gets each, always."""
    return not render.on_terminal() or any(row[key] for row in rows)


def _wanted(filter_string: str, grammar: filters.Grammar) -> str:
    """The filter, and no prompts. It is read alone first, so that an error shows what the user wrote."""
    filters.parse(filter_string, grammar)
    return registry.without_prompts(filter_string)


def _first(limit: int, search: Callable[[int, str | None], Page[T]]) -> tuple[list[T], bool]:
    """The first results of a search, and whether there are more."""
    found = all_pages(search, limit + 1, 1000)
    return found[:limit], len(found) > limit


def _tell_more(shown: int, more: bool) -> None:
    if more:
        render.note(f"these are the first {shown}; --max-results shows more")


def _version_row(version: ModelVersion, run: Run | None = None) -> dict[str, Any]:
    row: dict[str, Any] = {
        **version._asdict(),
        "version": int(version.version),
        "aliases": ", ".join(version.aliases),
        "run": run.info.run_name if run else "",
        "tags": ", ".join(f"{key}={value}" for key, value in sorted(version.tags.items())),
    }
    for key, value in run.data.metrics.items() if run else ():
        row[f"metrics.{key}"] = value
    return row


def _version_columns(
    versions: Sequence[ModelVersion], *, named: bool = False, runs: Sequence[Run] = ()
) -> list[render.Column]:
    from mlcli.cli.portrait import differing

    eyes = render.on_terminal()
    staged = not eyes or any(version.current_stage != ModelStage.NONE for version in versions)
    tagged = not eyes or any(version.tags for version in versions)
    told = not eyes or any(version.description for version in versions)
    return [
        *([render.Column("name", "NAME", least=12, style="bold")] if named else []),
        render.Column("version", "VERSION", right=True, style="" if named else "bold"),
        render.Column("aliases", "ALIASES", least=10, style="cyan"),
        *([render.Column("current_stage", "STAGE", optional=2)] if staged else []),
        render.Column("creation_timestamp", "CREATED", show=render.ago, right=True, pipe=render.iso_time),
        render.Column("run_id", "RUN", show=lambda run_id: str(run_id)[:SHORT_ID]),
        *([render.Column("run", "RUN NAME", least=10, optional=6)] if runs else []),
        *(
            render.Column(
                f"metrics.{key}",
                key,
                show=render.numbers(run.data.metrics.get(key) for run in runs),
                right=True,
                style="cyan",
                optional=3 + place,
                least=9,
            )
            for place, key in enumerate(differing([run.data.metrics for run in runs]))
        ),
        *([render.Column("tags", "TAGS", least=10, optional=1)] if tagged else []),
        *([render.Column("description", "DESCRIPTION", least=16, optional=5, style="dim")] if told else []),
        *([] if eyes else [render.Column("source"), render.Column("status"), render.Column("user_id")]),
    ]


# --- one model, one version ---------------------------------------------------------------------------------------


@app.command()
def show(model: Target, as_json: options.Json = False) -> None:
    """Show a model with its versions, or one version whole.

    A version comes with its lineage: run, project, commit, data, params, scores and environment.
    """
    with open_store(create=False) as store:
        text = model.removeprefix("models:/")
        if text.startswith("m-") and not set("/@?") & set(text) and _model(store, text) is None:
            _show_logged(store, text, as_json)
            return
        found = meant(store, model)
        if found.version is not None:
            _show_version(store, found.version, as_json)
        elif found.model is not None:
            _show_model(store, found.model, as_json)


def versions_of(store: Store, name: str) -> list[ModelVersion]:
    """All versions of a model, the newest first."""
    named = f"name = {filters.quoted(name)}"
    return all_pages(
        lambda size, token: store.search_model_versions(named, size, ["version_number DESC"], token), None, 1000
    )


def _show_model(store: Store, model: RegisteredModel, as_json: bool) -> None:
    versions = versions_of(store, model.name)
    if as_json:
        whole = registry.model_dictionary(model)
        render.emit_json({**whole, "versions": [registry.version_dictionary(version) for version in versions]})
        return
    if not render.on_terminal():
        render.fields(
            [
                ("name", model.name),
                ("description", model.description),
                ("creation_timestamp", render.iso_time(model.creation_timestamp)),
                ("last_updated_timestamp", render.iso_time(model.last_updated_timestamp)),
                *((f"tags.{key}", value) for key, value in sorted(model.tags.items())),
                *((f"aliases.{alias}", version) for alias, version in model.aliases.items()),
                *(("version", version.version) for version in versions),
            ]
        )
        return
    render.emit(render.styled(render.plain(model.name), "bold"))
    if model.description:
        render.emit(render.plain_lines(model.description))
    render.fields([("created", _moment(model.creation_timestamp)), ("changed", _moment(model.last_updated_timestamp))])
    section("tags", sorted(model.tags.items()))
    if not versions:
        render.note(f"\nit has no versions; `mlcli models register runs:/latest {model.name}` makes one")
        return
    render.heading("versions")
    shown = versions[:SHOWN]
    runs = _runs_of(store, shown)
    rows = [_version_row(version, runs.get(version.run_id)) for version in shown]
    for line in render.table(rows, _version_columns(shown, runs=list(runs.values())), render.terminal_width()):
        render.emit(line)
    if len(versions) > len(shown):
        render.note(f"these are the newest {len(shown)} of {len(versions)}; a pipe and --json get all")
    render.note(f"\n`mlcli models show {model.name}/{shown[0].version}` shows where a version came from")


def _runs_of(store: Store, versions: Sequence[ModelVersion]) -> dict[str, Run]:
    ids = sorted({version.run_id for version in versions if version.run_id.isalnum()})
    if not ids:
        return {}
    listed = ", ".join(f"'{run_id}'" for run_id in ids)
    found = store.search_runs(None, f"attributes.run_id IN ({listed})", ViewType.ALL, len(ids))
    return {run.info.run_id: run for run in found}


def _moment(ms: int) -> str:
    return f"{render.local_time(ms)} ({render.ago(ms)})"


def _place(store: Store, version: ModelVersion) -> str | None:
    from mlcli.errors import MlcliError

    try:
        return store.get_model_version_download_uri(version.name, version.version)
    except MlcliError as error:  # it came from elsewhere without its files, or what it was made of is gone
        render.warn(error.message)
        return None


def _show_version(store: Store, version: ModelVersion, as_json: bool) -> None:
    run = registry.run_of(store, version)
    came = registry.lineage(store, version, run)
    place = _place(store, version)
    if as_json:
        render.emit_json({**registry.version_dictionary(version), "download_uri": place, "lineage": came})
        return
    if not render.on_terminal():
        render.fields(
            [
                *((name, value) for name, value in version._asdict().items() if not isinstance(value, (dict, tuple))),
                ("download_uri", place),
                *(("alias", alias) for alias in version.aliases),
                *((f"tags.{key}", value) for key, value in sorted(version.tags.items())),
                *(
                    (f"{part}.{key}", value)
                    for part in ("run", "project", "environment", "params", "metrics")
                    for key, value in sorted(came.get(part, {}).items())
                ),
                *(("data", _dataset(item)) for item in came.get("data", ())),
            ]
        )
        return
    title = f"{render.plain(version.name)} version {version.version}"
    named = render.styled(f"  {_at(version.aliases)}", "cyan") if version.aliases else ""
    render.emit(render.styled(title, "bold") + named)
    if version.description:
        render.emit(render.plain_lines(version.description))
    render.fields(_first_lines(version, run, came, place))
    if came.get("data"):
        render.heading("data")
        for item in came["data"]:
            render.emit(render.plain(_dataset(item)))
    section("params", sorted(came.get("params", {}).items()))
    section("metrics", [(key, render.number(value)) for key, value in sorted(came.get("metrics", {}).items())])
    section("tags", sorted(version.tags.items()))
    render.note(f"\n`mlcli models download {uri_of(version)}` gets its files")


def _dataset(item: dict[str, Any]) -> str:
    return " ".join(
        part for part in (item["name"], item["digest"], f"({item['context']})" if item["context"] else "") if part
    )


def _first_lines(
    version: ModelVersion, run: Run | None, came: dict[str, Any], place: str | None
) -> list[tuple[str, object]]:
    project, env = came.get("project", {}), came.get("environment", {})
    commit = project.get("commit")
    if commit and project.get("uncommitted_changes") == "true":
        commit += " and uncommitted changes"
    of_run = None
    if run is not None:
        of_run = f"{run.info.run_id[:SHORT_ID]}  {run.info.run_name}  {render.status(run.info.status)}"
    elif version.run_id:
        of_run = f"{version.run_id}, which is not here"
    return [
        ("created", _moment(version.creation_timestamp)),
        ("by", version.user_id or None),
        ("stage", version.current_stage if version.current_stage != ModelStage.NONE else None),
        ("status", None if version.status == "READY" else f"{version.status} {version.status_message}".strip()),
        ("run", of_run),
        ("logged model", version.model_id or None),
        ("project", project.get("source")),
        ("entry point", project.get("entry_point")),
        ("commit", commit),
        ("branch", project.get("branch")),
        ("repository", project.get("repository")),
        ("environment", environment(env.get("manager"), env.get("python"), env.get("key")) or None),
        ("packages", env.get("lock")),
        ("made of", version.source),
        ("files", place if place != version.source else None),
    ]


def _show_logged(store: Store, model_id: str, as_json: bool) -> None:
    model = store.get_logged_model(model_id)
    if as_json:
        points = [point._asdict() for point in model.metrics]
        render.emit_json({**model._asdict(), "tags": dict(model.tags), "params": dict(model.params), "metrics": points})
        return
    times = ("creation_timestamp", "last_updated_timestamp")
    plain = {name: value for name, value in model._asdict().items() if name not in ("tags", "params", "metrics")}
    plain.update((name, (_moment if render.on_terminal() else render.iso_time)(plain[name])) for name in times)
    render.fields(
        [
            *((name, value) for name, value in plain.items() if value != ""),
            *((f"params.{key}", value) for key, value in sorted(model.params.items())),
            *(
                (f"metrics.{point.key}" + (f" on {point.dataset_name}" if point.dataset_name else ""), point.value)
                for point in model.metrics
            ),
            *((f"tags.{key}", value) for key, value in sorted(model.tags.items())),
        ]
    )


@app.command()
def compare(
    models: Annotated[
        List[str],
        typer.Argument(
            metavar="MODEL...",
            help="Versions, such as wine/1 wine@champion; a model stands for its newest versions.",
            autocompletion=completion.models,
        ),
    ],
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not the same in all.")] = False,
    as_json: options.Json = False,
) -> None:
    """Put versions side by side.

    Params, metrics, data, code, environment and packages; what differs is marked, and so is the best value of each
    metric: the greatest, or the least of losses, errors and times.
    """
    from mlcli.cli import comparison

    with open_store(create=False) as store:
        versions: list[ModelVersion] = []
        for word in models:
            found = meant(store, word)
            some = [found.version] if found.version is not None else versions_of(store, found.name)[:COMPARED][::-1]
            versions += [version for version in some if version not in versions]
        if len(versions) < 2:
            raise InvalidInput(
                f"two versions at least are needed, and there {'is one' if versions else 'is none'}",
                hint="mlcli models compare wine/1 wine@champion",
            )
        rows = [row for row in comparison.compared_versions(store, versions) if not changed or not row["same"]]
    ids = [uri_of(version) for version in versions]
    alike = len({version.name for version in versions}) == 1
    titles = [
        f"version {version.version}" if alike else uri.removeprefix("models:/")
        for version, uri in zip(versions, ids, strict=True)
    ]
    comparison.write("versions", ids, rows, as_json=as_json, titles=titles)


# --- names, tags, words -------------------------------------------------------------------------------------------


@alias_app.command("set")
def set_alias(
    name: Name,
    alias: AliasName,
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Its number, `latest`, or @ALIAS.", show_default=False)
    ],
) -> None:
    """Let an alias name a version, and no other any more.

    For example: mlcli models alias set wine champion 3
    """
    with open_store(create=False) as store:
        _in_order(name, alias, version)
        sign = "" if version.startswith(("@", "?")) else "/"
        try:
            found = one_version(store, f"{name.removeprefix('models:/')}{sign}{version}")
        except NotFound as error:
            if _model(store, name.removeprefix("models:/")) is None and _model(store, alias) is not None:
                raise NotFound(
                    str(error), hint=f"the model comes first: mlcli models alias set {alias} {name} {version}"
                ) from None
            raise
        before = (_model(store, found.name) or found).aliases
        store.set_registered_model_alias(found.name, alias, found.version)
    old = before.get(alias) if isinstance(before, dict) else None
    moved = f", before version {old}" if old not in (None, found.version) else ""
    render.success(f"{render.plain(found.name)}@{alias} is version {found.version}{moved}")


def _in_order(name: str, alias: str, version: str) -> None:
    """Raise where alias and version have changed places: the name of a model comes first, its version last."""
    if re.fullmatch("[0-9]+", alias) and not re.match("[0-9@?]|latest$", version):
        raise InvalidInput(
            f"{alias!r} is a number and {version!r} none: the alias comes first, then the version",
            hint=f"mlcli models alias set {name} {version} {alias}",
        )


@alias_app.command("delete")
def delete_alias(name: Name, alias: AliasName) -> None:
    """Take an alias away; the version stays."""
    with open_store(create=False) as store:
        model = meant(store, name).model
        if model is None or alias not in model.aliases:
            raise NotFound(
                f"{render.plain(name)} has no alias {alias!r}",
                hint=f"it has {', '.join(model.aliases)}" if model and model.aliases else "it has none",
            )
        store.delete_registered_model_alias(model.name, alias)
    render.success(f"{render.plain(model.name)} has no alias {alias} any more; it named version {model.aliases[alias]}")


@tag_app.command("set")
def set_tag(
    model: Target,
    pairs: Annotated[List[str], typer.Argument(metavar="KEY=VALUE...", help="The tags.", show_default=False)],
) -> None:
    """Set tags of a model or a version.

    For example: mlcli models tag set wine/3 stage=ready
    """
    tags = _pairs(pairs, "mlcli models tag set wine/3 stage=ready")
    with open_store(create=False) as store:
        found = meant(store, model)
        for key, value in tags.items():
            if found.version is not None:
                store.set_model_version_tag(found.name, found.version.version, key, value)
            else:
                store.set_registered_model_tag(found.name, key, value)
    render.success(f"{_about(found)}: set {', '.join(f'{key}={value}' for key, value in tags.items())}")


@tag_app.command("delete")
def delete_tag(
    model: Target, keys: Annotated[List[str], typer.Argument(metavar="KEY...", help="The tags.", show_default=False)]
) -> None:
    """Remove tags of a model or a version."""
    with open_store(create=False) as store:
        found = meant(store, model)
        has = found.version.tags if found.version is not None else found.model.tags if found.model is not None else {}
        gone = [key for key in keys if key not in has]
        if gone:
            raise NotFound(
                f"{_about(found)} has no tag {gone[0]!r}",
                hint=f"it has {', '.join(sorted(has))}" if has else "it has none",
            )
        for key in keys:
            if found.version is not None:
                store.delete_model_version_tag(found.name, found.version.version, key)
            else:
                store.delete_registered_model_tag(found.name, key)
    render.success(f"{_about(found)}: removed {', '.join(keys)}")


def _about(found: Meant) -> str:
    return _words(found.version) if found.version is not None else render.plain(found.name)


@app.command()
def describe(
    model: Target,
    text: Annotated[
        Optional[List[str]], typer.Argument(help="The description; `-` reads it from stdin.", show_default=False)
    ] = None,
) -> None:
    """Describe a model or a version.

    Without a text its description is printed.
    """
    with open_store(create=False) as store:
        found = meant(store, model)
        if not text:
            has = (
                found.version.description
                if found.version is not None
                else found.model.description
                if found.model
                else ""
            )
            if not has:
                raise NotFound(
                    f"{_about(found)} has no description", hint=f'`mlcli models describe {model} "TEXT"` writes one'
                )
            render.emit(render.plain_lines(has) if render.on_terminal() else has)
            return
        said = sys.stdin.read().rstrip("\n") if text == ["-"] else " ".join(text)
        if found.version is not None:
            store.update_model_version(found.name, found.version.version, said)
        else:
            store.update_registered_model(found.name, said)
    render.success(f"{_about(found)}: description {'kept' if said else 'removed'}")


@app.command()
def rename(
    name: Name, new_name: Annotated[str, typer.Argument(metavar="NEW", help="The new name.", show_default=False)]
) -> None:
    """Give a model another name.

    Versions, tags and aliases go with it; URIs with the old name lead nowhere from then on.
    """
    with open_store(create=False) as store:
        found = meant(store, name)
        if found.version is not None:
            raise InvalidInput(
                "a version has a number and no name of its own", hint=f"mlcli models rename {found.name} NEW"
            )
        store.rename_registered_model(found.name, new_name)
    render.success(f"{render.plain(found.name)} is now {render.plain(new_name)}")


@app.command()
def transition(
    version: Target,
    stage: Annotated[
        str, typer.Argument(metavar="STAGE", help="None, Staging, Production or Archived.", show_default=False)
    ],
    archive: Annotated[
        bool, typer.Option("--archive-existing-versions", help="Move the others in that stage to Archived.")
    ] = False,
) -> None:
    """Put a version into a stage of MLflow 2.

    Aliases do the same with words of your own: mlcli models alias set NAME champion VERSION
    """
    with open_store(create=False) as store:
        found = one_version(store, version)
        made = store.transition_model_version_stage(found.name, found.version, stage, archive)
    render.success(f"{_words(made)} is in {made.current_stage}")


@app.command()
def delete(
    model: Target,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a model or a version, for good.

    The files stay with the run. The number of a version is not given again.
    """
    with open_store(create=False) as store:
        found = meant(store, model)
        if found.version is not None:
            version = found.version
            named = f", which {_at(version.aliases)} names" if version.aliases else ""
            _ask(f"delete {_words(version)}{named}", yes)
            store.delete_model_version(version.name, version.version)
        else:
            number = len(versions_of(store, found.name))
            _ask(f"delete {render.plain(found.name)} with {render.count(number, 'version')}", yes)
            store.delete_registered_model(found.name)
    render.success(f"deleted {_about(found)}; the files are where they were")


def _ask(what: str, yes: bool) -> None:
    """Go on only if the user wants it."""
    if yes:
        return
    if not _can_ask():
        raise InvalidInput(f"nobody can be asked whether to {what}, for good", hint="say --yes")
    typer.confirm(f"{what[:1].upper()}{what[1:]}, for good?", abort=True, err=True)


def _can_ask() -> bool:
    return sys.stdin.isatty() and render.on_terminal(sys.stderr)


@app.command(hidden=True)
def restore(model: Annotated[str, typer.Argument(metavar="MODEL")] = "") -> None:
    """Tell that what is deleted from the registry does not come back."""
    raise InvalidInput(
        f"what was deleted from the registry cannot be restored{f': {model}' if model else ''}",
        hint="its files are still in the run: `mlcli models register runs:/RUN/PATH NAME` makes a new version of them",
    )
