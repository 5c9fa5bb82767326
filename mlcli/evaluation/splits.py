"""How rows are parted into those a model is fitted on and those it is tested on; scikit-learn's splitters do it."""

from __future__ import annotations

import warnings
from typing import Any, List, NamedTuple, Tuple

from mlcli.errors import InvalidInput
from mlcli.evaluation.tables import Table

METHODS = ("holdout", "kfold", "repeated-kfold", "stratified", "grouped", "timeseries", "bootstrap", "none")
Split = Tuple[Any, Any]


class Scheme(NamedTuple):
    """How to split. ``stratify`` None: where the target is a class."""

    method: str = "holdout"
    folds: int = 5
    repeats: int = 1
    test_size: float = 0.25
    n_boot: int = 200
    seed: int = 0
    stratify: bool | None = None


class Splits(NamedTuple):
    """The splits in their order, the splitter in words, and what to warn of."""

    parts: List[Split]
    splitter: str
    warnings: List[str]


def check(scheme: Scheme) -> None:
    """Refuse what no splitter can do, before anything is read."""
    if scheme.method not in METHODS:
        raise InvalidInput(f"there is no method {scheme.method!r}", hint="one of " + ", ".join(METHODS))
    if scheme.folds < 2:
        raise InvalidInput(
            f"--folds {scheme.folds} is too few", hint="--folds 5, or --method holdout for a single split"
        )
    if scheme.repeats < 1:
        raise InvalidInput("--repeats must be at least 1")
    if not 0 < scheme.test_size < 1:
        raise InvalidInput(f"--test-size is a share between 0 and 1, not {scheme.test_size:g}")
    if scheme.n_boot < 2:
        raise InvalidInput("--n-boot must be at least 2")


def make(scheme: Scheme, table: Table, *, classes: bool) -> Splits:
    """The splits of these rows; the same for the same seed."""
    import numpy as np

    rows = np.arange(table.rows)
    if scheme.method == "none":
        return Splits([(rows[:0], rows)], "none", [])
    if classes:
        _several_classes(table)
    stratify = classes if scheme.stratify is None else scheme.stratify
    if stratify and not classes:
        raise InvalidInput("only classes can be stratified, the target is a number", hint="leave out --stratify")
    if scheme.method == "grouped" and table.groups is None:
        raise InvalidInput("--method grouped needs the column that names the groups", hint="--group COLUMN")
    if scheme.method == "stratified" and not classes:
        raise InvalidInput("--method stratified needs classes, the target is a number", hint="--method kfold")
    if scheme.method == "bootstrap":
        return _resamples(scheme, table, classes=classes)
    if scheme.method == "timeseries":
        return _through_time(scheme, table)
    return _folds(scheme, table, stratify=stratify or scheme.method == "stratified")


def _several_classes(table: Table) -> None:
    import numpy as np

    try:
        labels = np.unique(table.truth)
    except TypeError:
        kinds = " and ".join(sorted({type(value).__name__ for value in table.truth.tolist()}))
        raise InvalidInput(f"the target {table.target!r} mixes {kinds}", hint="give all labels as texts") from None
    if len(labels) < 2:
        raise InvalidInput(
            f"the target {table.target!r} is {labels.tolist()[0]!r} in every row: there is nothing to tell apart",
            hint="give data with two classes at least; --method none scores a fitted model on one",
        )


def _through_time(scheme: Scheme, table: Table) -> Splits:
    """Each part is tested on a model that was fitted on what came before it."""
    import numpy as np
    from sklearn.model_selection import TimeSeriesSplit

    _enough(table.rows, scheme.folds + 1, "rows")
    told = []
    order = np.arange(table.rows)
    if table.times is not None:
        order = np.argsort(table.times, kind="stable")
        if (order != np.arange(table.rows)).any():
            told.append("the rows are not in the order of their times; they are evaluated in it")
    else:
        told.append("no --time column is named: the rows are taken to be in the order of their times")
    splitter = TimeSeriesSplit(n_splits=scheme.folds)
    return Splits([(order[train], order[test]) for train, test in splitter.split(order)], repr(splitter), told)


def _folds(scheme: Scheme, table: Table, *, stratify: bool) -> Splits:
    import numpy as np
    from sklearn import model_selection as ms

    told = []
    one = scheme.method == "holdout"
    repeats = 1 if scheme.method != "repeated-kfold" else scheme.repeats
    if stratify:
        least = int(np.unique(table.truth, return_counts=True)[1].min())
        if least < (2 if one else scheme.folds):
            told.append(
                f"the rarest class has {least} {'row' if least == 1 else 'rows'}, so not each fold holds one:"
                " the folds are not stratified"
            )
            stratify = False
    groups = table.groups
    if groups is not None:
        _enough(len(np.unique(groups)), 2 if one else scheme.folds, "groups")
    else:
        _enough(table.rows, 2 if one else scheme.folds, "rows")
    parts: List[Split] = []
    text = ""
    for repeat in range(repeats):
        seed = scheme.seed + repeat
        if one and groups is not None:
            splitter: Any = ms.GroupShuffleSplit(1, test_size=scheme.test_size, random_state=seed)
        elif one:
            return _holdout(scheme, table, stratify=stratify, told=told)
        elif groups is not None:
            splitter = _grouped(scheme.folds, seed, stratify=stratify)
        elif repeats > 1:
            kind = ms.RepeatedStratifiedKFold if stratify else ms.RepeatedKFold
            splitter = kind(n_splits=scheme.folds, n_repeats=repeats, random_state=scheme.seed)
        else:
            kind = ms.StratifiedKFold if stratify else ms.KFold
            splitter = kind(n_splits=scheme.folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few members of a class: told above
            parts += [(train, test) for train, test in splitter.split(table.features, table.truth, groups)]
        text = text or " ".join(repr(splitter).split())
        if groups is None and repeats > 1:
            break
    return Splits(parts, text, told)


def _holdout(scheme: Scheme, table: Table, *, stratify: bool, told: List[str]) -> Splits:
    import numpy as np
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(table.rows),
            test_size=scheme.test_size,
            random_state=scheme.seed,
            stratify=table.truth if stratify else None,
        )
    except ValueError as error:
        raise InvalidInput(
            f"the rows cannot be split so: {error}", hint="change --test-size, or --no-stratify"
        ) from None
    text = f"train_test_split(test_size={scheme.test_size:g}, random_state={scheme.seed}, stratify={stratify})"
    return Splits([(train, test)], text, told)


def _grouped(folds: int, seed: int, *, stratify: bool) -> Any:
    from sklearn import model_selection as ms

    if stratify:
        return ms.StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    try:
        return ms.GroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    except TypeError:  # before scikit-learn 1.6 its folds are always the same
        return ms.GroupKFold(n_splits=folds)


def _resamples(scheme: Scheme, table: Table, *, classes: bool) -> Splits:
    """Rows (or groups) drawn with replacement, against those that were not drawn."""
    import numpy as np

    _enough(table.rows, 3, "rows")
    generator = np.random.default_rng(scheme.seed)
    rows = np.arange(table.rows)
    members = rows if table.groups is None else np.unique(table.groups, return_inverse=True)[1]
    units = [np.flatnonzero(members == unit) for unit in range(members.max() + 1)] if table.groups is not None else None
    parts: List[Split] = []
    for _ in range(scheme.n_boot):
        for _try in range(100):
            drawn = generator.integers(0, members.max() + 1, members.max() + 1)
            train = drawn if units is None else np.concatenate([units[unit] for unit in drawn])
            test = np.setdiff1d(rows, train)
            if len(test) and (not classes or len(np.unique(table.truth[train])) > 1):
                break
        else:
            raise InvalidInput("no resample of these rows has two classes", hint="the data hold too few of one class")
        parts.append((train, test))
    unit = "rows" if units is None else "groups"
    return Splits(parts, f"bootstrap of {unit} (n_boot={scheme.n_boot}, seed={scheme.seed})", [])


def _enough(have: int, need: int, what: str) -> None:
    if have < need:
        raise InvalidInput(f"there are {have} {what}, {need} are needed at least", hint="fewer --folds, or more data")
