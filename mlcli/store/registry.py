"""The registry: models by name, their numbered versions, and the aliases, tags and stages that tell which one is meant.

A version's number is never given twice, not even after the version was deleted. Where the files of a version are is
decided once, when it is created: see :mod:`mlcli.store.sources` for what may be said, and :meth:`Registry._storage` for
what it comes to.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from mlcli import filters, journal, rules
from mlcli.entities import ModelStage, ModelVersion, Page, RegisteredModel
from mlcli.errors import AlreadyExists, InvalidInput, InvalidState, NotFound
from mlcli.store import query, sources
from mlcli.store.logged import LoggedModels
from mlcli.store.records import Pairs, grouped, pairs

MAX_MODELS_PAGE = 1000
MAX_VERSIONS_PAGE = 200_000
_MODEL_COLUMNS = "r.id, r.name, r.creation_time, r.last_updated_time, r.description"
_VERSION_COLUMNS = (
    "r.id, r.model, m.name, r.version, r.creation_time, r.last_updated_time, r.description, r.user_id, r.stage,"
    " r.source, r.run_id, r.run_link, r.status, r.status_message, r.model_id"
)
_VERSIONS = "model_versions r JOIN registered_models m ON m.id = r.model"
_RUN_FILES, _MODEL_FILES = "run-artifacts:/", "model-artifacts:/"
_ONE_OF_EACH = (ModelStage.STAGING, ModelStage.PRODUCTION)


class Registry(LoggedModels):
    """The part of a store that keeps registered models."""

    # -- models

    def create_registered_model(
        self, name: str, tags: Optional[Pairs] = None, description: Optional[str] = None
    ) -> RegisteredModel:
        rules.model_name(name)
        given = _tags(tags)
        with self.database.transaction():
            added = self.database.execute(
                "INSERT INTO registered_models (name, creation_time, last_updated_time, description)"
                " VALUES (:name, :now, :now, :description) ON CONFLICT (name) DO NOTHING",
                {"name": name, "now": journal.now(), "description": _description(description)},
            )
            if not added:
                raise AlreadyExists(f"there is a registered model {name!r} already")
            model = self._model_key(name)
            for key, value in given.items():
                self._set_tag_of_model(model, key, value)
        return self.get_registered_model(name)

    def get_registered_model(self, name: str) -> RegisteredModel:
        with self.database.snapshot():
            rows = self.database.query(
                f"SELECT {_MODEL_COLUMNS} FROM registered_models r WHERE r.name = :name", {"name": str(name)}
            )
            if not rows:
                raise _no_model(name)
            return self._registered_models(rows)[0]

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Rename a model; versions, tags and aliases go with it."""
        rules.model_name(new_name)
        with self.database.transaction():
            model = self._model_key(name)
            if new_name != name and self._find_model(new_name) is not None:
                raise AlreadyExists(f"there is a registered model {new_name!r} already")
            now = journal.now()
            self._touch(model, "name = :name", {"name": new_name}, now=now)
            self.database.execute(
                "UPDATE model_versions SET last_updated_time = :now WHERE model = :model", {"model": model, "now": now}
            )
        return self.get_registered_model(new_name)

    def update_registered_model(self, name: str, description: Optional[str]) -> RegisteredModel:
        with self.database.transaction():
            self._touch(self._model_key(name), "description = :description", {"description": _description(description)})
        return self.get_registered_model(name)

    def delete_registered_model(self, name: str) -> None:
        """Delete a model with its versions, tags and aliases, for good; files stay where they are."""
        with self.database.transaction():
            model = {"model": self._model_key(name)}
            self.database.execute("DELETE FROM registered_model_aliases WHERE model = :model", model)
            self.database.execute("DELETE FROM registered_models WHERE id = :model", model)

    def search_registered_models(
        self,
        filter_string: Optional[str] = "",
        max_results: int = 100,
        order_by: Optional[Sequence[str]] = None,
        page_token: Optional[str] = None,
    ) -> Page[RegisteredModel]:
        """Find registered models, by default in the order of their names."""
        select = query.registered_models(filter_string, order_by, journal.now())
        with self.database.snapshot():
            keys, token = self._page(select, max_results, page_token, MAX_MODELS_PAGE)
            rows = self._by_keys(f"SELECT {_MODEL_COLUMNS} FROM registered_models r WHERE r.id", keys)
            return Page(self._registered_models(rows), token)

    def get_latest_versions(self, name: str, stages: Optional[Sequence[str]] = None) -> List[ModelVersion]:
        """The newest version of each stage; ``stages`` says which, by default all."""
        wanted = [_stage(stage) for stage in stages or ()] or list(ModelStage.ALL)
        with self.database.snapshot():
            newest = self._latest([self._model_key(name)])
            found = [version for versions in newest.values() for version in versions]
        return [version for version in found if version.current_stage in wanted]

    def set_registered_model_tag(self, name: str, key: str, value: object) -> None:
        with self.database.transaction():
            self._set_tag_of_model(self._model_key(name), key, _tag_value(key, value))

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Remove a tag; one that is not there is no fault."""
        with self.database.transaction():
            self.database.execute(
                "DELETE FROM registered_model_tags WHERE model = :model AND key = :key",
                {"model": self._model_key(name), "key": str(key)},
            )

    # -- aliases

    def set_registered_model_alias(self, name: str, alias: str, version: object) -> None:
        """Let ``alias`` name this version, and no other any more."""
        rules.alias(alias)
        with self.database.transaction():
            _, model, number = self._version_key(name, version)
            self.database.execute(
                "INSERT INTO registered_model_aliases (model, alias, version) VALUES (:model, :alias, :version)"
                " ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version",
                {"model": model, "alias": alias, "version": number},
            )

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Remove an alias; one that is not there is no fault."""
        with self.database.transaction():
            self.database.execute(
                "DELETE FROM registered_model_aliases WHERE model = :model AND alias = :alias",
                {"model": self._model_key(name), "alias": str(alias)},
            )

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        with self.database.snapshot():
            row = self.database.one(
                "SELECT version FROM registered_model_aliases WHERE model = :model AND alias = :alias",
                {"model": self._model_key(name), "alias": str(alias)},
            )
            if row is None:
                # MLflow says so, and its clients know this by the code: not RESOURCE_DOES_NOT_EXIST.
                raise InvalidInput(
                    f"registered model {name!r} has no alias {alias!r}",
                    hint=f"`mlcli models show {name}` shows the ones it has",
                )
            return self.get_model_version(name, row[0])

    # -- versions

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: Optional[str] = None,
        tags: Optional[Pairs] = None,
        run_link: Optional[str] = None,
        description: Optional[str] = None,
        model_id: Optional[str] = None,
        user_id: str = "",
    ) -> ModelVersion:
        """Create the next version of a model. Raises InvalidInput for a source that may not be one."""
        read = sources.read(source)
        given = _tags(tags)
        if run_id:
            rules.run_id(run_id)
        self.absorb()
        with self.database.transaction():
            now = journal.now()
            # Counting up first: a second writer waits here, and then gets the next number.
            if not self.database.execute(
                "UPDATE registered_models SET highest_version = highest_version + 1, last_updated_time = :now"
                " WHERE name = :name",
                {"name": str(name), "now": now},
            ):
                raise _no_model(name)
            model, number = self.database.query(
                "SELECT id, highest_version FROM registered_models WHERE name = :name", {"name": str(name)}
            )[0]
            storage, run_id, model_id = self._storage(read, run_id or "", model_id or "")
            if model_id and not run_id and self._exists("logged_models", "model_id", model_id):
                # MLflow 3 names the logged model alone; its run is the version's.
                run_id = self.get_logged_model(model_id, allow_deleted=True).source_run_id or ""
            key = self.database.insert(
                "INSERT INTO model_versions (model, version, creation_time, last_updated_time, description, user_id,"
                " source, storage, run_id, run_link, model_id) VALUES (:model, :version, :now, :now, :description,"
                " :user_id, :source, :storage, :run_id, :run_link, :model_id)",
                {
                    "model": model,
                    "version": number,
                    "now": now,
                    "description": _description(description),
                    "user_id": user_id,
                    "source": read.text,
                    "storage": storage,
                    "run_id": run_id,
                    "run_link": rules.text(run_link or "", "the link to the run", sources.MAX_SOURCE),
                    "model_id": model_id,
                },
            )
            for tag, value in given.items():
                self._set_tag_of_version(key, tag, value)
        return self.get_model_version(name, number)

    def register_model_version(
        self,
        name: str,
        source: str,
        run_id: Optional[str] = None,
        tags: Optional[Pairs] = None,
        description: Optional[str] = None,
        model_id: Optional[str] = None,
        alias: Optional[str] = None,
        user_id: str = "",
        run_link: Optional[str] = None,
    ) -> ModelVersion:
        """Create the next version of a model, which is created if need be, and let ``alias`` name it: all or nothing."""
        if alias is not None:
            rules.alias(alias)
        self.absorb()
        with self.database.transaction():
            if self._find_model(name) is None:
                self.create_registered_model(name)
            made = self.create_model_version(name, source, run_id, tags, run_link, description, model_id, user_id)
            if alias is not None:
                self.set_registered_model_alias(name, alias, made.version)
        return self.get_model_version(name, made.version)

    def copy_model_version(self, name: str, version: object, new_name: str) -> ModelVersion:
        """Make a version of ``new_name``, which is created if need be, out of this one: same files, tags, description."""
        original = self.get_model_version(name, version)
        return self.register_model_version(
            new_name,
            f"models:/{original.name}/{original.version}",
            original.run_id,
            original.tags,
            original.description,
            original.model_id,
            run_link=original.run_link,
        )

    def get_model_version(self, name: str, version: object) -> ModelVersion:
        with self.database.snapshot():
            key, _, _ = self._version_key(name, version)
            return self._versions([key])[0]

    def update_model_version(self, name: str, version: object, description: Optional[str]) -> ModelVersion:
        with self.database.transaction():
            key, model, _ = self._version_key(name, version)
            self._touch_version(key, model, "description = :description", {"description": _description(description)})
        return self.get_model_version(name, version)

    def transition_model_version_stage(
        self, name: str, version: object, stage: str, archive_existing_versions: bool = False
    ) -> ModelVersion:
        """Put a version into a stage; ``archive_existing_versions`` moves the others out of Staging or Production."""
        target = _stage(stage)
        if archive_existing_versions and target not in _ONE_OF_EACH:
            raise InvalidInput(
                f"existing versions are not archived for the stage {target}", hint="only for Staging and Production"
            )
        with self.database.transaction():
            key, model, _ = self._version_key(name, version)
            if archive_existing_versions:
                self.database.execute(
                    "UPDATE model_versions SET stage = 'Archived', last_updated_time = :now"
                    " WHERE model = :model AND stage = :stage AND id <> :id",
                    {"model": model, "stage": target, "id": key, "now": journal.now()},
                )
            self._touch_version(key, model, "stage = :stage", {"stage": target})
        return self.get_model_version(name, version)

    def delete_model_version(self, name: str, version: object) -> None:
        """Delete a version with its tags and aliases, for good; its number is not given again."""
        with self.database.transaction():
            key, model, number = self._version_key(name, version)
            self.database.execute(
                "DELETE FROM registered_model_aliases WHERE model = :model AND version = :version",
                {"model": model, "version": number},
            )
            self.database.execute("DELETE FROM model_versions WHERE id = :id", {"id": key})
            self._touch(model, "", {})

    def search_model_versions(
        self,
        filter_string: Optional[str] = "",
        max_results: int = 10_000,
        order_by: Optional[Sequence[str]] = None,
        page_token: Optional[str] = None,
    ) -> Page[ModelVersion]:
        """Find versions of models, by default the ones changed last first."""
        select = query.model_versions(filter_string, order_by, journal.now())
        with self.database.snapshot():
            keys, token = self._page(select, max_results, page_token, MAX_VERSIONS_PAGE)
            return Page(self._versions(keys), token)

    def get_model_version_download_uri(self, name: str, version: object) -> str:
        """Where the files of a version are: a folder, or a URI. It may have moved since the version was made."""
        with self.database.snapshot():
            key, _, _ = self._version_key(name, version)
            row = self.database.one("SELECT storage FROM model_versions WHERE id = :id", {"id": key})
            storage = row[0] if row else ""
            if not storage:
                raise InvalidState(
                    f"version {version} of {name!r} has no files here", hint="it came from elsewhere without them"
                )
            return self._resolved(storage)

    def resolve_model_version(self, uri: str) -> ModelVersion:
        """The version that a URI names now.

        models:/iris/3                      the third
        models:/iris/latest                 the one with the highest number
        models:/iris@champion               the one that the alias names
        models:/iris/Staging                the newest in a stage
        models:/iris?tags.stage = 'ready'   the newest that the filter matches; ``ORDER BY <column> DESC`` behind it,
                                            or alone, says which of them comes first
        """
        named = self._meant(uri)
        if named is None:
            raise _no_uri(uri)
        return self.get_model_version(*named)

    def locate_model(self, uri: str) -> str:
        """Where the files of the version that ``uri`` names, or of ``models:/<logged model>``, are: a folder, or a URI."""
        named = self._meant(uri)
        if named is not None:
            return self.get_model_version_download_uri(*named)
        try:
            source = sources.read(uri)
        except InvalidInput:
            raise _no_uri(uri) from None
        if source.kind != "model":
            raise _no_uri(uri)
        return self.get_logged_model(source.name).artifact_location

    def _meant(self, uri: str) -> Optional[Tuple[str, str]]:
        """The name and the number of the version that a URI names; None where it names none."""
        place, asked, text = str(uri).partition("?")
        if asked and place.startswith("models:/"):
            return self._chosen(rules.model_name(place[len("models:/") :]), text)
        try:
            source = sources.read(uri)
        except InvalidInput:
            return None
        return (source.name, self._version_named(source)) if source.kind == "version" else None

    def _chosen(self, name: str, text: str) -> Tuple[str, str]:
        """The version that comes first of those that match; where no order is given, the newest."""
        chosen = filters.choice(text)
        found = self.search_model_versions(
            filters.both(f"name = {filters.quoted(name)}", chosen.filter),
            max_results=1,
            order_by=[*chosen.order_by, "version_number DESC"],
        )
        if not found:
            self.get_registered_model(name)
            raise NotFound(
                f"no version of registered model {name!r} matches {chosen.filter}",
                hint=f"`mlcli models show {name}` shows its versions and their tags",
            )
        return found[0].name, found[0].version

    def get_model_version_folder(self, name: str, version: object) -> str:
        """The folder of this machine that holds the files of a version. Raises InvalidInput where they are elsewhere.

        For whoever reads the files on behalf of another: a URI that a client chose is never followed.
        """
        found = self.get_model_version_download_uri(name, version)
        if found.startswith("runs:/"):
            found = self._folder_in_run(*found[len("runs:/") :].partition("/")[::2])
        if not os.path.isabs(found):
            raise InvalidInput(f"the files of version {version} of {name!r} are not kept here")
        return found

    def _folder_in_run(self, run_id: str, path: str) -> str:
        """A model below a run: a folder of its artifacts or, as MLflow 3 has it, the logged model of that name."""
        folder = self._run_folder(run_id)
        name, _, below = path.partition("/")
        if name and "'" not in name and not os.path.lexists(f"{folder}/{name}"):
            made = self.search_logged_models(None, f"source_run_id = '{run_id}' AND name = '{name}'", max_results=1)
            if made:
                folder, path = made[0].artifact_location, below
        return f"{folder}/{path}" if path else folder

    def set_model_version_tag(self, name: str, version: object, key: str, value: object) -> None:
        with self.database.transaction():
            self._set_tag_of_version(self._version_key(name, version)[0], key, _tag_value(key, value))

    def delete_model_version_tag(self, name: str, version: object, key: str) -> None:
        """Remove a tag; one that is not there is no fault."""
        with self.database.transaction():
            self.database.execute(
                "DELETE FROM model_version_tags WHERE version = :version AND key = :key",
                {"version": self._version_key(name, version)[0], "key": str(key)},
            )

    # -- where files are

    def storage_of(self, source: str, run_id: str, model_id: str) -> str:
        """Where the files of a version that came from elsewhere are here, as a version made here would keep it.

        Raises when its source is one that is refused, or names what is not here.
        """
        return self._storage(sources.read(source), run_id, model_id)[0]

    def _storage(self, source: sources.Source, run_id: str, model_id: str) -> Tuple[str, str, str]:
        """Where the files of a version are to be found from now on, its run and its logged model."""
        if source.kind == "run":
            if run_id and run_id != source.name:
                raise InvalidInput(
                    f"the source {source.text!r} is of another run than run_id {run_id!r}", hint="give the same run"
                )
            self._run_folder(source.name)
            return source.text, source.name, model_id
        if source.kind == "model":
            if model_id and model_id != source.name:
                raise InvalidInput(
                    f"the source {source.text!r} is another model than model_id {model_id!r}",
                    hint="give the same model",
                )
            self._active_model(source.name)
            return f"{_MODEL_FILES}{source.name}/", run_id, source.name
        if source.kind == "version":
            storage, of_model = self._storage_of_version(source)
            return storage, run_id, model_id or of_model
        if source.kind == "local":
            return self._inside(source, run_id, model_id), run_id, model_id
        if source.kind in ("run files", "model files"):
            of_run = source.kind == "run files"
            owner = ("runs", "run_id") if of_run else ("logged_models", "model_id")
            if not self._exists(*owner, source.name):
                raise sources.refused(source.text)
            return f"{_RUN_FILES if of_run else _MODEL_FILES}{source.name}/{source.path}", run_id, model_id
        return source.text, run_id, model_id

    def _storage_of_version(self, source: sources.Source) -> Tuple[str, str]:
        """The storage and logged model of the version that a ``models:/name/...`` source names today."""
        key, _, _ = self._version_key(source.name, self._version_named(source))
        storage, model_id = self.database.query(
            "SELECT storage, model_id FROM model_versions WHERE id = :id", {"id": key}
        )[0]
        return storage, model_id

    def _version_named(self, source: sources.Source) -> str:
        """The number of the version that is meant: a number already, ``@alias``, ``latest`` or a stage."""
        reference = source.reference
        if reference.isascii() and reference.isdigit():
            return reference
        if reference.startswith("@"):
            return self.get_model_version_by_alias(source.name, reference[1:]).version
        if reference.lower() not in ("latest", *map(str.lower, ModelStage.ALL)):
            self.get_registered_model(source.name)
            raise InvalidInput(
                f"registered model {source.name!r} has no version {reference!r}",
                hint=f"a version is a number, latest or a stage; an alias follows an @: models:/{source.name}@{reference}",
            )
        found = self.get_latest_versions(source.name, None if reference.lower() == "latest" else [reference])
        if not found:
            raise NotFound(f"registered model {source.name!r} has no version {reference!r}")
        return max((each.version for each in found), key=int)

    def _inside(self, source: sources.Source, run_id: str, model_id: str) -> str:
        """A local path as a path inside the artifacts of the run, or of the logged model; any other is refused."""
        places = []
        if run_id and self._exists("runs", "run_id", run_id):
            places.append((f"{_RUN_FILES}{run_id}", self._run_folder(run_id)))
        if model_id and self._exists("logged_models", "model_id", model_id):
            places.append((f"{_MODEL_FILES}{model_id}", self.get_logged_model(model_id).artifact_location))
        real = os.path.realpath(source.path)
        for prefix, folder in places:
            top = os.path.realpath(folder)
            if os.path.isabs(folder) and (real == top or real.startswith(top + os.sep)):
                return f"{prefix}/{real[len(top) + 1 :]}"
        raise sources.refused(source.text)

    def _resolved(self, storage: str) -> str:
        for prefix in (_RUN_FILES, _MODEL_FILES):
            if storage.startswith(prefix):
                owner, _, path = storage[len(prefix) :].partition("/")
                if prefix == _RUN_FILES:
                    folder = self._run_folder(owner)
                else:
                    folder = self.get_logged_model(owner, allow_deleted=True).artifact_location
                return f"{folder}/{path}" if path else folder
        return storage

    def _run_folder(self, run_id: str) -> str:
        row = self.database.one(
            "SELECT e.artifact_location, e.id FROM runs r JOIN experiments e ON e.id = COALESCE(r.home, r.experiment)"
            " WHERE r.run_id = :run_id",
            {"run_id": run_id},
        )
        if row is None:
            raise NotFound(f"there is no run {run_id!r}", hint="`mlcli runs list` shows what there is")
        base = row[0] or os.path.join(self.root, str(row[1]))
        return f"{base.rstrip('/')}/{run_id}/artifacts"

    def _exists(self, table: str, column: str, value: str) -> bool:
        return bool(self._count(f"SELECT COUNT(*) FROM {table} WHERE {column} = :value", {"value": value}))

    # -- rows to values

    def _registered_models(self, rows: Sequence[Tuple[Any, ...]]) -> List[RegisteredModel]:
        keys = [row[0] for row in rows]
        tags = grouped(
            self._by_keys("SELECT model, key, value FROM registered_model_tags WHERE model", keys, ordered=False)
        )
        aliases = grouped(
            self._by_keys("SELECT model, alias, version FROM registered_model_aliases WHERE model", keys, ordered=False)
        )
        latest = self._latest(keys)
        return [
            RegisteredModel(
                name,
                created,
                updated,
                description,
                tuple(latest.get(key, ())),
                tags.get(key, {}),
                {alias: str(version) for alias, version in sorted(aliases.get(key, {}).items())},
            )
            for key, name, created, updated, description in rows
        ]

    def _latest(self, models: Sequence[int]) -> Dict[int, List[ModelVersion]]:
        """The newest version of each stage, by model."""
        highest: Dict[Tuple[int, str], Tuple[int, int]] = {}
        for model, stage, version, key in self._by_keys(
            "SELECT x.model, x.stage, x.version, x.id FROM model_versions x WHERE NOT EXISTS (SELECT 1 FROM"
            " model_versions y WHERE y.model = x.model AND y.stage = x.stage AND y.version > x.version) AND x.model",
            models,
            ordered=False,
        ):
            highest[model, stage] = (version, key)
        owners = {key: model for (model, _), (_, key) in highest.items()}
        result: Dict[int, List[ModelVersion]] = {}
        ordered = sorted(owners)
        for key, version in zip(ordered, self._versions(ordered)):
            result.setdefault(owners[key], []).append(version)
        return result

    def _versions(self, keys: Sequence[int]) -> List[ModelVersion]:
        rows = self._by_keys(f"SELECT {_VERSION_COLUMNS} FROM {_VERSIONS} WHERE r.id", keys)
        tags = grouped(
            self._by_keys("SELECT version, key, value FROM model_version_tags WHERE version", keys, ordered=False)
        )
        aliases: Dict[Tuple[int, int], List[str]] = {}
        for model, version, alias in self._by_keys(
            "SELECT model, version, alias FROM registered_model_aliases WHERE model",
            sorted({row[1] for row in rows}),
            ordered=False,
        ):
            aliases.setdefault((model, version), []).append(alias)
        result = []
        for key, model, name, version, *rest in rows:
            # The columns stand in the order of the fields.
            fields = ModelVersion(name, str(version), *rest)
            named = tuple(sorted(aliases.get((model, version), ())))
            result.append(fields._replace(tags=tags.get(key, {}), aliases=named))
        return result

    # -- small pieces

    def _find_model(self, name: str) -> Optional[int]:
        row = self.database.one("SELECT id FROM registered_models WHERE name = :name", {"name": str(name)})
        return int(row[0]) if row else None

    def _model_key(self, name: str) -> int:
        found = self._find_model(name)
        if found is None:
            raise _no_model(name)
        return found

    def _version_key(self, name: str, version: object) -> Tuple[int, int, int]:
        """The keys of a version and of its model, and its number."""
        number = _number(version)
        row = self.database.one(
            f"SELECT r.id, r.model FROM {_VERSIONS} WHERE m.name = :name AND r.version = :version",
            {"name": str(name), "version": number},
        )
        if row is None:
            if self._find_model(name) is None:
                raise _no_model(name)
            raise NotFound(
                f"registered model {name!r} has no version {version}",
                hint=f"`mlcli models show {name}` shows the ones it has",
            )
        return int(row[0]), int(row[1]), number

    def _touch(self, model: int, change: str, params: Mapping[str, Any], now: Optional[int] = None) -> None:
        self.database.execute(
            f"UPDATE registered_models SET {change}{', ' if change else ''}last_updated_time = :now WHERE id = :id",
            {**params, "id": model, "now": now or journal.now()},
        )

    def _touch_version(self, key: int, model: int, change: str, params: Mapping[str, Any]) -> None:
        now = journal.now()
        self.database.execute(
            f"UPDATE model_versions SET {change}, last_updated_time = :now WHERE id = :id",
            {**params, "id": key, "now": now},
        )
        self._touch(model, "", {}, now=now)

    def _set_tag_of_model(self, model: int, key: str, value: str) -> None:
        self.database.execute(
            "INSERT INTO registered_model_tags (model, key, value) VALUES (:model, :key, :value)"
            " ON CONFLICT (model, key) DO UPDATE SET value = excluded.value",
            {"model": model, "key": rules.key(key, "tag"), "value": value},
        )

    def _set_tag_of_version(self, version: int, key: str, value: str) -> None:
        self.database.execute(
            "INSERT INTO model_version_tags (version, key, value) VALUES (:version, :key, :value)"
            " ON CONFLICT (version, key) DO UPDATE SET value = excluded.value",
            {"version": version, "key": rules.key(key, "tag"), "value": value},
        )


def _no_model(name: object) -> NotFound:
    return NotFound(f"there is no registered model {name!r}", hint="`mlcli models list` shows what there is")


def _no_uri(uri: object) -> InvalidInput:
    return InvalidInput(
        f"{uri!r} names no model",
        hint="write models:/<name>/<version>, models:/<name>/latest, models:/<name>@<alias>,"
        " models:/<name>?tags.<tag> = '<value>' or models:/<model id>",
    )


def _number(version: object) -> int:
    text = str(version)
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise InvalidInput(f"{text[:40]!r} is not the number of a version", hint="versions are numbered from 1")
    return int(text)


def _stage(stage: object) -> str:
    for known in ModelStage.ALL:
        if str(stage).lower() == known.lower():
            return known
    raise InvalidInput(f"{str(stage)[:40]!r} is no stage", hint="one of " + ", ".join(ModelStage.ALL))


def _description(description: Optional[str]) -> str:
    return rules.text(description or "", "the description", rules.MAX_DESCRIPTION)


def _tag_value(key: str, value: object) -> str:
    return rules.text(value, f"the value of tag {key!r}", rules.MAX_MODEL_TAG_VALUE)


def _tags(tags: Optional[Pairs]) -> Dict[str, str]:
    return {rules.key(key, "tag"): _tag_value(key, value) for key, value in pairs(tags)}
