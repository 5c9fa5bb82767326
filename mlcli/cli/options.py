"""Options and choices that several commands share, each explained once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, List, Optional

import typer
from typer.core import TyperGroup

from mlcli.cli import completion
from mlcli.config import setting
from mlcli.entities import ViewType
from mlcli.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlcli.entities import Experiment
    from mlcli.store import Store


class PlainGroup(TyperGroup):
    """A group that prints its help when no command is named."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**{**attrs, "no_args_is_help": True, "suggest_commands": False})


def group(about: str) -> typer.Typer:
    """A group of commands with plain help, which spares the import of rich."""
    return typer.Typer(
        help=about, cls=PlainGroup, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
    )


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RunArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="RUN",
        help="Run id, a unique beginning of it, `latest`, `latest~1`, or a name.",
        autocompletion=completion.run_ids,
        show_default=False,
    ),
]
RunOption = Annotated[
    Optional[str],
    typer.Option(
        "-r", "--run-id", metavar="RUN", help="The run, given as an option.", autocompletion=completion.run_ids
    ),
]
Runs = Annotated[
    List[str],
    typer.Argument(metavar="RUN...", help="Run ids, or what stands for them.", autocompletion=completion.run_ids),
]
ExperimentNames = Annotated[
    Optional[List[str]],
    typer.Option(
        "-n",
        "--experiment-name",
        metavar="NAME",
        help="Only runs of this experiment; may be repeated.",
        autocompletion=completion.experiment_names,
    ),
]
ExperimentIds = Annotated[
    Optional[List[str]], typer.Option("-x", "--experiment-id", metavar="ID", help="The same by id; may be repeated.")
]
View = Annotated[
    str, typer.Option("-v", "--view", help="active_only, deleted_only or all.", metavar="VIEW", show_default=True)
]
Filter = Annotated[
    str, typer.Option("--filter", metavar="FILTER", help='Only what this matches, such as "metrics.acc > 0.9".')
]
OrderBy = Annotated[
    Optional[List[str]],
    typer.Option("--order-by", metavar="KEY", help='Sort by this, such as "metrics.acc DESC"; may be repeated.'),
]
Limit = Annotated[int, typer.Option("--max-results", metavar="N", min=1, help="At most so many.")]

_VIEWS = {"active_only": ViewType.ACTIVE_ONLY, "deleted_only": ViewType.DELETED_ONLY, "all": ViewType.ALL}


def view_type(word: str) -> str:
    """The view that the word asks for; ``active`` and ``deleted`` will do."""
    key = word.lower()
    for known, view in _VIEWS.items():
        if key in (known, known.removesuffix("_only")):
            return view
    raise InvalidInput(f"there is no view {word!r}", hint="say active_only, deleted_only or all")


def one_run(store: Store, given: str | None, option: str | None) -> str:
    """The id of the run named by the argument or by ``--run-id``."""
    if given and option and given != option:
        raise InvalidInput(f"two runs are named, {given!r} and {option!r}: give one of them")
    word = given or option
    if not word:
        raise InvalidInput("no run is named", hint="give a run id or `latest`; `mlcli runs list` shows the ids")
    return store.find_run(word)


def find_experiment(store: Store, name: str | None, experiment_id: str | None) -> Experiment:
    """The experiment of that name or that id, exactly one of which is given."""
    if (name is None) == (experiment_id is None):
        raise InvalidInput(
            "name one experiment",
            hint="give --experiment-name or --experiment-id; `mlcli experiments search` lists them",
        )
    if name is None:
        return store.get_experiment(str(experiment_id))
    found = store.find_experiment(name)
    if found is None:
        raise no_experiment(store, name)
    return found


def no_experiment(store: Store, name: str) -> NotFound:
    from mlcli.cli.boundary import did_you_mean

    near = did_you_mean(name, [experiment.name for experiment in store.search_experiments()])
    return NotFound(f"there is no experiment {name!r}", hint=near or "`mlcli experiments search` lists them")


def chosen_experiments(store: Store, names: Sequence[str] | None, ids: Sequence[str] | None) -> list[Experiment] | None:
    """The experiments that the options or the settings name; None stands for all."""
    if not names and not ids:
        by_id, by_name = setting("experiment_id").value, setting("experiment_name").value
        ids, names = ([by_id], None) if by_id else (None, [by_name] if by_name else None)
    if not names and not ids:
        return None
    return [find_experiment(store, name, None) for name in names or ()] + [
        find_experiment(store, None, experiment_id) for experiment_id in ids or ()
    ]
