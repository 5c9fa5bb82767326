"""Autolog: trainings log themselves. ``mlcli.autolog()`` turns it on for every library that is, or will be, imported.

This package can be called, because MLflow's name for both the function and the thing is the same.

    patches     replaces attributes of other people's classes and puts them back; waits for imports
    session     which training is logged, to which run; a step of ours that fails is said once and breaks nothing
    inputs      the arguments of a training, datasets, examples
    scores      scores and plots of a fitted scikit-learn estimator
    calls       what a program does with an estimator after its training
    sklearn, xgboost, lightgbm, lightning     one library each
"""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import Any, Mapping, Optional, Sequence


def autolog(
    log_input_examples: bool = False,
    log_model_signatures: bool = True,
    log_models: bool = True,
    log_datasets: bool = True,
    log_traces: bool = True,  # noqa: ARG001 - MLflow's signature; there are no traces here
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    extra_tags: Optional[Mapping[str, str]] = None,
    exclude_flavors: Optional[Sequence[str]] = None,
) -> None:
    """Log trainings with scikit-learn, XGBoost, LightGBM and PyTorch Lightning from now on, whenever they are imported.

    A library's own call (``mlcli.sklearn.autolog(...)``) goes before this one; ``disable=True`` turns all of them off.
    """
    from mlcli.autolog.session import LIBRARIES, Settings
    from mlcli.errors import InvalidInput

    excluded = set(exclude_flavors or ())
    unknown = sorted(excluded - {*LIBRARIES})
    if unknown:
        raise InvalidInput(
            f"{unknown[0]!r} is no library that autolog knows", hint="it knows " + ", ".join(sorted(LIBRARIES))
        )
    settings = Settings(
        log_input_examples=log_input_examples,
        log_model_signatures=log_model_signatures,
        log_models=log_models,
        log_datasets=log_datasets,
        exclusive=exclusive,
        disable_for_unsupported_versions=disable_for_unsupported_versions,
        silent=silent,
        extra_tags=extra_tags,
    )
    for name, home in LIBRARIES.items():
        library = import_module(home).LIBRARY
        if name in excluded:
            continue
        if disable:
            library.disable(chosen=False)
        elif not library.chosen:
            library.enable(settings, chosen=False)


class _Callable(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> None:
        _everywhere(*args, **kwargs)


_everywhere = autolog
_this = sys.modules[__name__]
_this.__class__ = _Callable
_this.__signature__ = signature(autolog)  # type: ignore[attr-defined]
# Whichever comes first, `mlcli.autolog(...)` or an import of a module in here: the name means this package and can be called.
globals()["autolog"] = _this
