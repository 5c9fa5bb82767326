"""`mlcli monitor`: has what a model sees drifted, and how does it serve?"""

from __future__ import annotations

import time
from typing import Annotated, Any, Optional

import typer

from mlcli.cli import options, render
from mlcli.errors import InvalidInput
from mlcli.store import open_store

EXIT_DRIFT = 1
MAX_ROWS = 100_000

app = options.group("Watch what models see and how they serve.")


@app.command()
def drift(
    reference: Annotated[
        str, typer.Option("--reference", metavar="FILE", help="What the model was made from: CSV or Parquet.")
    ],
    current: Annotated[Optional[str], typer.Option("--current", metavar="FILE", help="What it sees now.")] = None,
    rollout: Annotated[
        Optional[str], typer.Option("--rollout", metavar="NAME", help="What this rollout's requests held.")
    ] = None,
    window: Annotated[
        str, typer.Option("--window", metavar="TIME", help="With --rollout, how far back: 30m, 1d.")
    ] = "1d",
    alpha: Annotated[
        float, typer.Option("--alpha", metavar="SHARE", min=1e-6, max=0.5, help="The share of false alarms.")
    ] = 0.05,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when something has drifted.")] = False,
    as_json: options.Json = False,
) -> None:
    """Compare features with those a model was made from.

    Kolmogorov-Smirnov for amounts, chi-squared for categories, one rate of false alarms over all features
    (Benjamini-Hochberg). PSI stands beside the threshold that it exceeds by chance with that rate at this number of rows.
    """
    from mlcli.cli.rollouts import need_statistics

    need_statistics()
    if (current is None) == (rollout is None):
        raise InvalidInput("name what to compare with", hint="--current FILE, or --rollout NAME")
    from mlcli.rollouts.drift import compare

    now = _file(current) if current is not None else _of_rollout(str(rollout), window)
    before = _file(reference)
    if not set(before) & set(now):
        raise InvalidInput(
            "the two have no column in common", hint=f"{', '.join(list(before)[:5])} against {', '.join(list(now)[:5])}"
        )
    found = compare(before, now, alpha=alpha)
    columns = (
        render.Column("feature", "FEATURE", least=8, style="bold"),
        render.Column("drifted", "DRIFT", show=lambda x: "yes" if x else "no", style=lambda x: "red" if x else "green"),
        render.Column("q", "Q", right=True, show=lambda x: f"{x:.2g}"),
        render.Column("test", "TEST", optional=1),
        render.Column("statistic", "STATISTIC", right=True, show=lambda x: f"{x:.4g}", optional=2),
        render.Column("psi", "PSI", right=True, show=lambda x: f"{x:.3f}"),
        render.Column("psi_threshold", "BY CHANCE", right=True, show=lambda x: f"{x:.3f}", optional=1),
        render.Column("wasserstein", "DISTANCE SD", right=True, show=lambda x: f"{x:.3f}", optional=3),
        render.Column("js", "JS", right=True, show=lambda x: f"{x:.3f}", optional=4),
        render.Column("current", "ROWS", right=True, optional=5),
    )
    render.records([one._asdict() for one in found], columns, as_json=as_json, empty="there was too little to compare")
    if exit_code and any([one.drifted for one in found]):
        raise typer.Exit(EXIT_DRIFT)


def _file(path: str) -> dict[str, list[Any]]:
    from mlcli.evaluation import tables

    frame = tables.read(path)
    return {str(name): list(frame[name]) for name in frame}


def _of_rollout(name: str, window: str) -> dict[str, list[Any]]:
    from mlcli.rollouts.features import table_of
    from mlcli.rollouts.rolloutfile import duration
    from mlcli.store.rollouts import Rollouts

    seconds = duration(window)
    if not seconds:
        raise InvalidInput(f"--window {window!r} is no time", hint="write 30m, 6h, 1d")
    with open_store(create=False) as store:
        rollouts = Rollouts(store)
        now = time.time_ns()
        rows = rollouts.features(rollouts.get(name).key, now - int(seconds * 1e9), now, MAX_ROWS)
    if not rows:
        raise InvalidInput(f"rollout {name!r} kept no inputs in the last {window}", hint="a longer --window?")
    return table_of([text for text, _ in rows])


@app.command("serve-stats")
def serve_stats(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The rollout.", show_default=False)],
    window: Annotated[str, typer.Option("--window", metavar="TIME", help="How far back: 5m, 1h.")] = "5m",
    as_json: options.Json = False,
) -> None:
    """Show how each arm of a rollout serves: rate, errors, latencies, and how many inputs repeat one another."""
    from mlcli.rollouts import latency
    from mlcli.rollouts.lifecycle import spec_of
    from mlcli.rollouts.rolloutfile import duration
    from mlcli.store.rollouts import Rollouts

    seconds = duration(window)
    if not seconds:
        raise InvalidInput(f"--window {window!r} is no time", hint="write 5m, 1h")
    with open_store(create=False) as store:
        rollouts = Rollouts(store)
        record = rollouts.get(name)
        since = time.time_ns() - int(seconds * 1e9)
        first = rollouts.batch_at(record.key, since)[0]
        last = rollouts.batch_at(record.key)[0]
        counters = rollouts.counters(record.key, last, first)
        inputs, distinct = rollouts.repeated_inputs(record.key, since)
        arms = spec_of(record).arms
    rows = []
    for number, arm in enumerate(arms):
        for role in ("live", "shadow", "other"):
            mine = [one for one in counters if (one.arm, one.role) == (number, role)]
            if not mine:
                continue
            n = sum(one.n for one in mine)
            times = latency.merged(latency.read(one.latencies) for one in mine)
            found = {q: latency.quantile(times, share) for q, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
            rows.append(
                {
                    "arm": arm.name,
                    "role": role,
                    "requests": n,
                    "rate": n / seconds,
                    "errors": sum(one.errors for one in mine),
                    "error_rate": sum(one.errors for one in mine) / n if n else None,
                    **{f"{q}_ms": None if us is None else round(us / 1000, 3) for q, us in found.items()},
                    "shed": sum(one.shed for one in mine),
                    "dropped": sum(one.dropped for one in mine),
                }
            )
    repeated = 1 - distinct / inputs if inputs else None
    columns = (
        render.Column("arm", "ARM", style="bold"),
        render.Column("role", "ROLE"),
        render.Column("requests", "REQUESTS", right=True),
        render.Column("rate", "PER SECOND", right=True, show=lambda x: f"{x:.2f}"),
        render.Column("error_rate", "ERRORS", right=True, show=lambda x: f"{x:.2%}"),
        render.Column("p50_ms", "P50 MS", right=True),
        render.Column("p95_ms", "P95 MS", right=True),
        render.Column("p99_ms", "P99 MS", right=True, optional=1),
        render.Column("shed", "SHED", right=True, optional=2),
        render.Column("dropped", "DROPPED", right=True, optional=2),
    )
    if as_json:
        render.emit_json({"window_seconds": seconds, "arms": rows, "repeated_inputs": repeated})
        return
    render.records(rows, columns, empty=f"nothing was served in the last {window}")
    if repeated is not None:
        render.note(f"{repeated:.1%} of the inputs repeat another one")
