"""All that a store says about itself, as JSON: what must be the same whichever version of the schema it came from."""

from __future__ import annotations

from typing import Any

from mlcli.entities import ViewType
from mlcli.store import Store


def picture(store: Store) -> dict[str, Any]:
    """Experiments, runs and metric histories; places in the store's own folder begin with <store>, NaN is text."""
    runs = store.search_runs(view_type=ViewType.ALL, order_by=["run_id"])
    return _plain(
        {
            "experiments": [
                item._asdict() for item in store.search_experiments(order_by=["name"], view_type=ViewType.ALL)
            ],
            "runs": [run.to_dictionary() for run in runs],
            "histories": {
                f"{run.info.run_id} {key}": [list(point) for point in store.get_metric_history(run.info.run_id, key)]
                for run in runs
                for key in run.data.metrics
            },
        },
        store.root,
    )


def _plain(value: Any, root: str) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item, root) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, root) for item in value]
    if isinstance(value, float) and value - value != 0.0:
        return repr(value)
    return value.replace(root, "<store>") if isinstance(value, str) else value
