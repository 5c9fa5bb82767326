"""The one run that a search is after: the best of those that match, or the worst."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlcli import filters
from mlcli.cli.comparison import better_is_less
from mlcli.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlcli.entities import Run
    from mlcli.store import Store


def find(
    store: Store, experiment_ids: Sequence[str] | None, filter_string: str, view: str, key: str, *, best: bool
) -> tuple[Run, str]:
    """The run at one end of the order of a metric, and the name of the metric.

    Which end is the best:

        metrics.loss ASC, metrics.f1 DESC ...   the first in the order that is asked for
        metrics.val_loss, metrics.rmse ...      the least: the name says so (`comparison.better_is_less`)
        anything else                           the greatest
    """
    term = filters.parse_order([key])[0] if key.strip() else None
    if term is None or term.entity != "metric":
        raise InvalidInput(f"{key!r} is no metric", hint="such as --best metrics.f1, or --best 'metrics.cost ASC'")
    asked = key.rsplit(maxsplit=1)[-1].upper() in ("ASC", "DESC")
    descending = term.descending if asked else not better_is_less(term.key)
    direction = "DESC" if descending == best else "ASC"
    found = store.search_runs(experiment_ids, filter_string, view, 1, [f"metrics.`{term.key}` {direction}"])
    value = found[0].data.metrics.get(term.key) if found else None
    if value is None or value != value:  # noqa: PLR0124 - NaN is the one value unequal to itself
        which = "no run that matches" if filter_string else "no run"
        raise NotFound(f"{which} has the metric {term.key!r}", hint="`mlcli runs list` shows what there is")
    return found[0], term.key
