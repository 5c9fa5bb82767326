"""The file of a rollout, read into values: which models, who gets which, what is measured, and when to go on or back.

    rollout = read("rollout.yaml")        # ProjectError with file, line, column and a fix when it cannot be used
    problems = lint("rollout.yaml")       # everything that is, or may be, wrong with it
    parse(text)                           # the same from text, as it is kept with the rollout

docs/rollouts.md tells of every key. Durations are seconds, or `30s`, `10m`, `1h`, `1d`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from mlcli.errors import ProjectError
from mlcli.projects import yamlfile
from mlcli.projects.problem import ERROR, WARNING, Problem, listing, raise_first, similar
from mlcli.rollouts.assignment import HASHES

API_VERSION = "mlcli/v1"
ALGORITHMS = ("thompson", "ucb1", "epsilon_greedy")
STRATEGIES = ("ab", "canary", "shadow", "bandit")
POLICIES = ("superiority", "non_inferiority", "no_harm")
SOURCES = ("status", "latency", "outcome", "loss")
KINDS = {"status": ("event",), "latency": ("quantile",), "outcome": ("proportion", "mean"), "loss": ("mean",)}
LOSSES = ("absolute_error", "squared_error", "zero_one")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SECONDS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Arm(NamedTuple):
    """A model that may answer."""

    name: str
    model: str


class Unit(NamedTuple):
    """What is assigned to an arm: named by a header of the request or a field of its body."""

    header: str = ""
    field: str = ""
    on_missing: str = "control"  # control (and not analysed) | request (each request is a unit) | reject


class Hash(NamedTuple):
    """How units are placed."""

    algorithm: str
    salt: str
    seed: int = 1


class Step(NamedTuple):
    """A step of a canary: shadow, set_weight or pause."""

    kind: str
    weight: float = 0.0
    fraction: float = 1.0
    duration: float = 0.0
    least: int = 0  # units (pause) or rows (shadow)


class Shadow(NamedTuple):
    """Which share of requests is copied, for how long an answer is waited for, how many copies may wait."""

    fraction: float = 1.0
    timeout: float = 2.0
    queue: int = 1_000


class Bandit(NamedTuple):
    """How a bandit moves traffic."""

    algorithm: str = "thompson"
    reward: str = ""
    prior: tuple[float, float] = (1.0, 1.0)
    every_units: int = 100
    every: float = 60.0
    least: int = 100
    floor: float = 0.01
    sticky: bool = True
    window: float = 3600.0
    seed: int = 0


class Metric(NamedTuple):
    """A quantity that arms are compared by."""

    name: str
    source: str  # status | latency | outcome | loss
    kind: str  # event | quantile | proportion | mean
    higher_is_better: bool
    key: str = ""
    q: float = 0.95
    loss: str = ""
    window: float = 0.0  # how long after its first exposure a unit's outcome counts; 0: always
    covariate: str = ""  # key of outcomes from before the rollout, for CUPED


class Gate(NamedTuple):
    """What must not happen. ``kind``: limit (a bound of its own), events, quantile, margin (against control)."""

    metric: str
    kind: str
    limit: float = 0.0
    upper: bool = True  # limit: the value may not be above (max) or below (min) it
    critical: bool = False
    tolerance: float = 1.0
    margin: float = 0.0
    least_events: int = 3

    @property
    def name(self) -> str:
        word = {"limit": "max" if self.upper else "min", "events": "vs control", "quantile": "vs control"}
        return f"{self.metric} {word.get(self.kind, 'margin')}"


class Decision(NamedTuple):
    """When a rollout has won, lost or lasted too long."""

    primary: str = ""
    policy: str = "superiority"
    margin: float = 0.0
    alpha: float = 0.05
    guardrail_alpha: float = 0.01
    min_units: int = 1_000
    min_duration: float = 0.0
    max_duration: float = 14 * 86400.0
    on_timeout: str = "hold"
    auto: bool = True
    srm_alpha: float = 0.001
    rollback_cooldown: float = 600.0
    planned_units: int = 0  # where the confidence sequence is tightest; 0: twice min_units


class Offline(NamedTuple):
    """The offline evaluation that must be on record before a rollout starts."""

    metric: str
    min_improvement: float = 0.0
    max_age: float = 0.0


class Rollout(NamedTuple):
    """A rollout as its file says it."""

    name: str
    endpoint: str
    unit: Unit
    hash: Hash
    control: Arm
    candidates: tuple[Arm, ...]
    strategy: str
    steps: tuple[Step, ...]
    weights: tuple[float, ...]  # of the arms, control first; ab
    coverage: float
    shadow: Shadow
    bandit: Bandit
    metrics: tuple[Metric, ...]
    gates: tuple[Gate, ...]
    decision: Decision
    fallback: str  # control | error
    match: tuple[tuple[str, tuple[str, ...]], ...]
    offline: Offline | None

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.control, *self.candidates)

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.metrics if metric.name == name)


def read(path: str) -> Rollout:
    """Read the rollout in the file at ``path``."""
    return _made(yamlfile.read(path))


def parse(text: str, file: str = "rollout.yaml") -> Rollout:
    """Read a rollout from text."""
    return _made(yamlfile.parse(text, file))


def lint(path: str) -> list[Problem]:
    """Give all problems of the file, in the order of their lines."""
    try:
        reader = _Reader(yamlfile.read(path))
        reader.rollout()
    except ProjectError as error:
        return [Problem(ERROR, "unreadable", error.message, error.file, error.line, error.column, error.hint)]
    return sorted(reader.problems, key=lambda problem: (problem.line or 0, problem.column or 0))


def duration(value: object) -> float | None:
    """Seconds of `90`, `30s`, `10m`, `1.5h`, `14d`; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value) if value >= 0 and math.isfinite(value) else None
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    return float(found.group(1)) * _SECONDS[found.group(2)] if found else None


def _made(document: yamlfile.Document) -> Rollout:
    reader = _Reader(document)
    rollout = reader.rollout()
    raise_first(reader.problems)
    return rollout


class _Reader:
    """Takes a document apart and notes each problem where it stands; goes on after it with a value that will do."""

    def __init__(self, document: yamlfile.Document) -> None:
        self.document = document
        self.problems: list[Problem] = list(document.problems)

    # -- parts of any file

    def error(self, code: str, message: str, *path: str | int, hint: str = "") -> None:
        self.problems.append(self.document.problem(ERROR, code, message, *path, hint=hint))

    def warning(self, code: str, message: str, *path: str | int, hint: str = "") -> None:
        self.problems.append(self.document.problem(WARNING, code, message, *path, hint=hint))

    def at(self, *path: str | int) -> object:
        value = self.document.data
        for key in path:
            if isinstance(value, dict) and isinstance(key, str):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                return None
        return value

    def mapping(self, *path: str | int, known: Sequence[str] = ()) -> dict[str, object]:
        value = self.at(*path)
        name = str(path[-1]) if path else "the file"
        if path and isinstance(path[-1], int):
            name = f"item {path[-1] + 1} of {path[-2]}"
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.error("not-a-map", f"`{name}` must be a map", *path, hint=f"write {listing(list(known)[:3])} below it")
            return {}
        for key in value:
            if known and key not in known:
                near = similar(key, known)
                hint = f"did you mean `{near}`?" if near else f"known here: {', '.join(known)}"
                self.error("unknown-key", f"`{key}` is not a key of {name}", *path, key, hint=hint)
        return value

    def items(self, *path: str | int) -> list[object]:
        value = self.at(*path)
        if value is None:
            return []
        if not isinstance(value, list):
            self.error("not-a-list", f"`{path[-1]}` must be a list", *path, hint="begin each item with `- `")
            return []
        return value

    def text(self, *path: str | int, default: str = "", required: bool = False, hint: str = "") -> str:
        value = self.at(*path)
        if value is None:
            if required:
                self.error("missing", f"`{path[-1]}` is missing", *path[:-1], hint=hint)
            return default
        if isinstance(value, (dict, list)):
            self.error("not-text", f"`{path[-1]}` must be text", *path)
            return default
        return self.document.written(*path) or ""

    def choice(self, *path: str | int, of: Sequence[str], default: str) -> str:
        value = self.text(*path, default=default)
        if value not in of:
            near = similar(value, of)
            hint = f"did you mean `{near}`?" if near else ""
            self.error("not-one-of", f"`{path[-1]}` is one of {', '.join(of)}, not `{value}`", *path, hint=hint)
            return default
        return value

    def number(self, *path: str | int, default: float = 0.0, low: float = -math.inf, high: float = math.inf) -> float:
        value = self.at(*path)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            bounds = f" between {low:g} and {high:g}" if math.isfinite(high) else f" of at least {low:g}"
            self.error(
                "not-a-number",
                f"`{path[-1]}` must be a number{bounds if math.isfinite(low) else ''}, not `{self.document.written(*path)}`",
                *path,
            )
            return default
        return float(value)

    def whole(self, *path: str | int, default: int = 0, low: int = 0) -> int:
        value = self.number(*path, default=default, low=low)
        if value != int(value):
            self.error("not-whole", f"`{path[-1]}` must be a whole number", *path)
        return int(value)

    def seconds(self, *path: str | int, default: float = 0.0) -> float:
        value = self.at(*path)
        if value is None:
            return default
        found = duration(value)
        if found is None:
            self.error(
                "not-a-duration",
                f"`{path[-1]}` must be a duration, not `{self.document.written(*path)}`",
                *path,
                hint="write `30s`, `10m`, `1h` or `14d`",
            )
            return default
        return found

    def truth(self, *path: str | int, default: bool) -> bool:
        value = self.at(*path)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.error("not-a-truth", f"`{path[-1]}` must be true or false", *path)
            return default
        return value

    # -- a rollout

    def rollout(self) -> Rollout:
        if not isinstance(self.document.data, dict):
            raise ProjectError(
                "this is not a rollout", file=self.document.file, hint="begin with `kind: Rollout` and `name: ...`"
            )
        self.mapping(
            known=(
                "apiVersion", "kind", "name", "endpoint", "unit", "assignment", "control", "candidates",
                "require_offline", "match", "strategy", "metrics", "gates", "decision", "fallback",
            )
        )  # fmt: skip
        if self.text("apiVersion", default=API_VERSION) != API_VERSION:
            self.error("version", f"`apiVersion` is {API_VERSION}", "apiVersion", hint="another mlcli may know it")
        if self.text("kind", default="Rollout") != "Rollout":
            self.error("kind", "`kind` is Rollout", "kind")
        name = self.text("name", required=True, hint="write `name: churn-v7`")
        if name and not NAME.fullmatch(name):
            self.error("name", f"`{name}` is not a name", "name", hint="letters, digits, dot, dash and underscore")
        control = self._arm("control", fallback="control")
        candidates = self._candidates(control)
        metrics = self._metrics()
        strategy = self._strategy()
        weights, coverage = self._ab(control, candidates) if strategy == "ab" else ((), 1.0)
        if strategy in ("canary", "shadow") and len(candidates) > 1:
            self.error(
                "one-candidate", f"a {strategy} has one candidate, not {len(candidates)}", "candidates",
                hint="compare several with `ab` or `bandit`",
            )  # fmt: skip
        self.mapping("fallback", known=("on_candidate_error",))
        return Rollout(
            name, self.text("endpoint", default=name), self._unit(), self._hash(name), control, candidates, strategy,
            self._steps() if strategy == "canary" else (), weights, coverage,
            self._shadow() if strategy == "shadow" else Shadow(),
            self._bandit(metrics) if strategy == "bandit" else Bandit(),
            metrics, self._gates(metrics), self._decision(metrics, strategy),
            self.choice("fallback", "on_candidate_error", of=("control", "error"), default="control"),
            self._match(), self._offline(),
        )  # fmt: skip

    def _arm(self, *path: str | int, fallback: str) -> Arm:
        if self.at(*path) is None:
            self.error("missing", f"`{path[-1]}` is missing", *path[:-1], hint="write {name: ..., model: models:/...}")
            return Arm(fallback, "")
        self.mapping(*path, known=("name", "model"))
        name = self.text(*path, "name", default=fallback)
        if not NAME.fullmatch(name):
            self.error("name", f"`{name}` is not a name of an arm", *path, "name")
        return Arm(name, self.text(*path, "model", required=True, hint="write `model: models:/NAME/VERSION`"))

    def _candidates(self, control: Arm) -> tuple[Arm, ...]:
        found: list[Arm] = []
        for number in range(len(self.items("candidates"))):
            arm = self._arm("candidates", number, fallback=f"candidate-{number + 1}")
            if arm.name in {control.name, *(other.name for other in found)}:
                self.error("twice", f"two arms are named `{arm.name}`", "candidates", number)
            found.append(arm)
        if not found:
            self.error("missing", "`candidates` is missing", hint="write `candidates: [{name: ..., model: ...}]`")
            found.append(Arm("candidate", ""))
        return tuple(found)

    def _unit(self) -> Unit:
        self.mapping("unit", known=("header", "field", "on_missing"))
        unit = Unit(
            self.text("unit", "header"),
            self.text("unit", "field"),
            self.choice("unit", "on_missing", of=("control", "request", "reject"), default="control"),
        )
        if not unit.header and not unit.field and unit.on_missing == "control":
            self.error(
                "no-unit", "nothing says what a unit is, so control would answer everything",
                *(("unit",) if self.at("unit") else ()),
                hint="write `unit: {header: X-User-Id}`, or `on_missing: request` to assign each request by itself",
            )  # fmt: skip
        return unit

    def _hash(self, name: str) -> Hash:
        self.mapping("assignment", known=("hash", "salt", "seed"))
        return Hash(
            self.choice("assignment", "hash", of=tuple(HASHES), default="sha256"),
            self.text("assignment", "salt", default=name),
            self.whole("assignment", "seed", default=1),
        )

    def _match(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        found = []
        for key in self.mapping("match"):
            value = self.at("match", key)
            values = value if isinstance(value, list) else [value]
            found.append((key, tuple(str(item) for item in values)))
        return tuple(found)

    def _offline(self) -> Offline | None:
        if self.at("require_offline") is None:
            return None
        self.mapping("require_offline", known=("metric", "min_improvement", "max_age"))
        return Offline(
            self.text("require_offline", "metric", required=True, hint="write `metric: roc_auc`"),
            self.number("require_offline", "min_improvement"),
            self.seconds("require_offline", "max_age"),
        )

    # -- strategies

    def _strategy(self) -> str:
        found = [key for key in self.mapping("strategy", known=STRATEGIES) if key in STRATEGIES]
        if len(found) == 1:
            return found[0]
        if found:
            self.error("strategy", f"`strategy` has {len(found)} strategies", "strategy", hint="keep one of them")
        else:
            self.error(
                "strategy", "no strategy is named", *(("strategy",) if self.at("strategy") else ()),
                hint=f"write one of {', '.join(STRATEGIES)} below `strategy:`",
            )  # fmt: skip
        return found[0] if found else "ab"

    def _ab(self, control: Arm, candidates: Sequence[Arm]) -> tuple[tuple[float, ...], float]:
        path = ("strategy", "ab")
        names = [control.name, *(arm.name for arm in candidates)]
        self.mapping(*path, known=("weights", "coverage"))
        coverage = self.number(*path, "coverage", default=1.0, low=0.0, high=1.0)
        if self.at(*path, "weights") is None:
            return tuple(1 / len(names) for _ in names), coverage
        self.mapping(*path, "weights", known=names)
        weights = [self.number(*path, "weights", name, low=0.0, high=100.0) for name in names]
        whole = sum(weights)
        if abs(whole - 100) > 0.01 and abs(whole - 1) > 1e-4:
            self.error("weights", f"the weights sum to {whole:g}, not to 100", *path, "weights")
            return tuple(1 / len(names) for _ in names), coverage
        return tuple(weight / whole for weight in weights), coverage

    def _steps(self) -> tuple[Step, ...]:
        path = ("strategy", "canary", "steps")
        self.mapping(*path[:2], known=("steps",))
        found: list[Step] = []
        highest = 0.0
        for number, item in enumerate(self.items(*path)):
            here = (*path, number)
            kinds = [key for key in item if key in ("shadow", "set_weight", "pause")] if isinstance(item, dict) else []
            if len(kinds) != 1 or (isinstance(item, dict) and len(item) != 1):
                self.error("step", "a step is one of shadow, set_weight and pause", *here, hint="- {set_weight: 10}")
                continue
            kind = kinds[0]
            if kind == "set_weight":
                weight = self.number(*here, kind, low=0.0, high=100.0) / 100
                if weight < highest:
                    self.warning("falling-weight", "this weight is lower than the one before it", *here, kind)
                highest = weight
                found.append(Step(kind, weight=weight))
            elif kind == "pause":
                self.mapping(*here, kind, known=("duration", "min_units"))
                found.append(
                    Step(
                        kind,
                        duration=self.seconds(*here, kind, "duration"),
                        least=self.whole(*here, kind, "min_units"),
                    )
                )
            else:
                self.mapping(*here, kind, known=("fraction", "duration", "min_rows"))
                found.append(
                    Step(
                        kind,
                        fraction=self.number(*here, kind, "fraction", default=1.0, low=0.0, high=1.0),
                        duration=self.seconds(*here, kind, "duration"),
                        least=self.whole(*here, kind, "min_rows"),
                    )
                )
        if not any([step.kind == "set_weight" for step in found]):
            self.error(
                "steps", "a canary needs steps that set weights", *path[: 3 if self.at(*path) else 2],
                hint="steps: [{set_weight: 10}, {pause: {duration: 1h, min_units: 1000}}, {set_weight: 100}]",
            )  # fmt: skip
        for before, after in pairwise(found):
            if before.kind == after.kind == "set_weight":
                self.warning("no-pause", "two weights follow each other: nothing is observed in between", *path)
                break
        return tuple(found)

    def _shadow(self) -> Shadow:
        path = ("strategy", "shadow")
        self.mapping(*path, known=("fraction", "timeout", "queue", "isolate"))
        self.choice(*path, "isolate", of=("process",), default="process")
        return Shadow(
            self.number(*path, "fraction", default=1.0, low=0.0, high=1.0),
            self.seconds(*path, "timeout", default=2.0),
            self.whole(*path, "queue", default=1_000, low=1),
        )

    def _bandit(self, metrics: Sequence[Metric]) -> Bandit:
        path = ("strategy", "bandit")
        self.mapping(
            *path,
            known=(
                "algorithm", "reward", "prior", "update", "min_units_per_arm", "floor", "sticky", "reward_window", "seed",
            ),
        )  # fmt: skip
        self.mapping(*path, "update", known=("every_units", "every"))
        reward = self.text(*path, "reward", required=True, hint="name a metric with `source: outcome`")
        known = [metric.name for metric in metrics if metric.source == "outcome"]
        if reward and reward not in known:
            self.error(
                "reward", f"there is no metric `{reward}` with `source: outcome`", *path, "reward",
                hint=f"known: {', '.join(known) or 'none'}",
            )  # fmt: skip
        prior = self.at(*path, "prior")
        if prior is not None and not (
            isinstance(prior, list) and len(prior) == 2 and all([isinstance(x, (int, float)) and x > 0 for x in prior])
        ):
            self.error("prior", "`prior` is two positive numbers", *path, "prior", hint="prior: [1, 1]")
            prior = None
        a, b = prior if isinstance(prior, list) else (1.0, 1.0)
        arms = 1 + max(len(self.items("candidates")), 1)
        return Bandit(
            self.choice(*path, "algorithm", of=ALGORITHMS, default="thompson"),
            reward,
            (float(a), float(b)),
            self.whole(*path, "update", "every_units", default=100, low=1),
            self.seconds(*path, "update", "every", default=60.0),
            self.whole(*path, "min_units_per_arm", default=100, low=1),
            self.number(*path, "floor", default=0.01, low=0.0, high=1 / arms),
            self.truth(*path, "sticky", default=True),
            self.seconds(*path, "reward_window", default=3600.0),
            self.whole(*path, "seed"),
        )

    # -- metrics, gates, decision

    def _metrics(self) -> tuple[Metric, ...]:
        found = []
        for name in self.mapping("metrics"):
            path = ("metrics", name)
            self.mapping(*path, known=("source", "kind", "better", "key", "q", "loss", "window", "covariate"))
            source = self.choice(*path, "source", of=SOURCES, default="outcome")
            kinds = KINDS[source]
            better = self.choice(
                *path, "better", of=("lower", "higher"), default="higher" if source == "outcome" else "lower"
            )
            found.append(
                Metric(
                    name,
                    source,
                    self.choice(*path, "kind", of=kinds, default=kinds[0]),
                    better == "higher",
                    self.text(*path, "key", default=name),
                    self.number(*path, "q", default=0.95, low=0.01, high=0.999),
                    self.choice(*path, "loss", of=LOSSES, default="absolute_error") if source == "loss" else "",
                    self.seconds(*path, "window"),
                    self.text(*path, "covariate"),
                )
            )
        return tuple(found)

    def _gates(self, metrics: Sequence[Metric]) -> tuple[Gate, ...]:
        by_name = {metric.name: metric for metric in metrics}
        found = []
        for number in range(len(self.items("gates"))):
            path = ("gates", number)
            given = self.mapping(
                *path,
                known=(
                    "metric", "max", "min", "vs", "test", "tolerance", "margin", "critical", "min_candidate_events",
                ),
            )  # fmt: skip
            metric = by_name.get(self.text(*path, "metric", required=True, hint="name one of `metrics`"))
            if metric is None:
                if "metric" in given:
                    near = similar(str(given["metric"]), by_name)
                    self.error(
                        "unknown-metric", f"there is no metric `{given['metric']}`", *path, "metric",
                        hint=f"did you mean `{near}`?" if near else f"known: {', '.join(by_name) or 'none'}",
                    )  # fmt: skip
                continue
            gate = self._gate(path, given, metric)
            if gate is not None:
                found.append(gate)
        return tuple(found)

    def _gate(self, path: tuple[str | int, ...], given: dict[str, object], metric: Metric) -> Gate | None:
        critical = self.truth(*path, "critical", default=False)
        if "max" in given or "min" in given:
            if metric.kind == "mean":
                self.error(
                    "gate", "a mean has no limit of its own here", *path, hint="compare it: {vs: control, margin: ...}"
                )
                return None
            side = "max" if "max" in given else "min"
            if metric.kind == "quantile" and side == "min":
                self.error("gate", "a latency has a `max`", *path, "min")
            return Gate(metric.name, "limit", self.number(*path, side), side == "max", critical)
        if "margin" in given:
            if metric.source not in ("outcome", "loss"):
                self.error("gate", f"`margin` is for outcomes and losses, not for {metric.source}", *path, "margin")
                return None
            margin = self.number(*path, "margin")
            if margin == 0 or (margin > 0) == metric.higher_is_better:
                self.warning(
                    "margin", "a margin of the side that is better asks for more than no harm", *path, "margin",
                    hint="write how much worse is still good enough, e.g. -0.01 where higher is better",
                )  # fmt: skip
            return Gate(metric.name, "margin", margin=margin, critical=critical)
        kinds = {"event": "events", "quantile": "quantile"}
        if "vs" not in given:
            self.error("gate", "a gate has `max`, `min`, or `vs: control`", *path)
            return None
        self.choice(*path, "vs", of=("control",), default="control")
        fitting = kinds.get(metric.kind)
        if fitting is None:
            self.error("gate", f"a gate on a {metric.kind} needs a `margin`", *path, hint="write `margin: -0.01`")
            return None
        self.choice(*path, "test", of=(fitting,), default=fitting)
        return Gate(
            metric.name,
            fitting,
            critical=critical,
            tolerance=self.number(*path, "tolerance", default=1.0, low=1.0, high=1000.0),
            least_events=self.whole(*path, "min_candidate_events", default=3, low=1),
        )

    def _decision(self, metrics: Sequence[Metric], strategy: str) -> Decision:
        path = "decision"
        self.mapping(path, known=(*Decision._fields,))
        primary = self.text(path, "primary")
        known = [metric.name for metric in metrics if metric.kind in ("proportion", "mean")]
        policy = self.choice(path, "policy", of=POLICIES, default="superiority" if primary else "no_harm")
        if primary and primary not in known:
            self.error(
                "primary", f"`{primary}` is no metric with an outcome or a loss", path, "primary",
                hint=f"known: {', '.join(known) or 'none'}",
            )  # fmt: skip
        if policy != "no_harm" and not primary:
            self.error("primary", f"the policy {policy} needs a `primary` metric", path, "policy")
        if strategy == "shadow" and primary and next((m.source for m in metrics if m.name == primary), "") == "outcome":
            self.error(
                "primary", "clients never see a shadow's answers, so it has no outcomes of its own", path, "primary",
                hint="take a metric with `source: loss`, or the policy no_harm",
            )  # fmt: skip
        default = Decision()
        least = self.whole(path, "min_units", default=default.min_units, low=2)
        decision = Decision(
            primary, policy, self.number(path, "margin"),
            self.number(path, "alpha", default=default.alpha, low=1e-6, high=0.5),
            self.number(path, "guardrail_alpha", default=default.guardrail_alpha, low=1e-9, high=0.5),
            least,
            self.seconds(path, "min_duration"),
            self.seconds(path, "max_duration", default=default.max_duration),
            self.choice(path, "on_timeout", of=("hold", "rollback"), default="hold"),
            self.truth(path, "auto", default=True),
            self.number(path, "srm_alpha", default=default.srm_alpha, low=1e-9, high=0.1),
            self.seconds(path, "rollback_cooldown", default=default.rollback_cooldown),
            self.whole(path, "planned_units", default=2 * least, low=2),
        )  # fmt: skip
        if decision.max_duration < decision.min_duration:
            self.error("durations", "`max_duration` is shorter than `min_duration`", path, "max_duration")
        return decision
