"""The first page: the experiments, how much is in them and when something last happened."""

from __future__ import annotations

from typing import Any

from mlcli.cli.portrait import NOTE
from mlcli.entities import ViewType
from mlcli.server.pages import Page, Visit
from mlcli.store import Store, survey

VIEWS = {"active": ViewType.ACTIVE_ONLY, "deleted": ViewType.DELETED_ONLY}
ORDERS = ("last", "name", "runs", "created")
SIZE = 100


def listing(visit: Visit, store: Store) -> Page:
    words = visit.query.one("q").strip()
    view = visit.query.chosen("view", tuple(VIEWS))
    order = visit.query.chosen("order", ORDERS)
    known = survey.activity(store)
    found = store.search_experiments(_named_like(words), ["name ASC"], VIEWS[view], 10_000)
    rows: list[dict[str, Any]] = []
    for experiment in found:
        done = known.get(experiment.experiment_id, survey.Activity())
        rows.append(
            {
                "experiment_id": experiment.experiment_id,
                "name": experiment.name,
                "note": experiment.tags.get(NOTE, ""),
                "runs": done.runs,
                "running": done.running,
                "last_activity": done.last,
                "creation_time": experiment.creation_time,
                "lifecycle_stage": experiment.lifecycle_stage,
            }
        )
    if order == "last":
        rows.sort(key=lambda row: row["last_activity"] or row["creation_time"], reverse=True)
    elif order in ("runs", "created"):
        rows.sort(key=lambda row: row["runs" if order == "runs" else "creation_time"], reverse=True)
    page = visit.query.whole("page", 1, 1, 10_000)
    data = {
        "experiments": rows[(page - 1) * SIZE : page * SIZE],
        "total": len(rows),
        "page": page,
        "pages": max(1, -(-len(rows) // SIZE)),
        "search": words,
        "view": view,
        "order": order,
        "running": sum(row["running"] for row in rows),
        "store": store.database.name if not visit.server.auth.required else "",
    }
    return Page("experiments.html", "Experiments", data, "list" if visit.query.one("part") == "list" else "")


def _named_like(words: str) -> str:
    if not words:
        return ""
    pattern = "".join("\\" + char if char in "%_\\" else char for char in words).replace("'", "''")
    return f"name ILIKE '%{pattern}%'"
