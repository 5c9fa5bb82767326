"""Which training is logged, to which run, and what happens when logging fails: nothing, but a line on stderr.

Only the outermost training of a thread is logged: what a pipeline, a search or a cross-validation trains inside of it is its
own affair, in the worker threads of joblib as well.

    a run is active                     the training is logged to it; it stays open
    a run is active, exclusive=True     nothing is logged
    no run is active                    the training gets a run of its own: FINISHED, or FAILED when it raised
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from threading import RLock, local
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional, Set, Tuple, Type

from mlcli import context, fluent, journal, rules
from mlcli.autolog import patches
from mlcli.errors import InvalidInput, MlcliError

AUTOLOGGING = "mlflow.autologging"  # the tag of a run that autolog started: which library it was for


class Settings(NamedTuple):
    """What `autolog` was called with; each library knows its own part of it."""

    log_input_examples: bool = False
    log_model_signatures: bool = True
    log_models: bool = True
    log_datasets: bool = True
    exclusive: bool = False
    disable_for_unsupported_versions: bool = False
    silent: bool = False
    registered_model_name: Optional[str] = None
    extra_tags: Optional[Mapping[str, str]] = None
    # scikit-learn
    max_tuning_runs: Optional[int] = 5
    log_post_training_metrics: bool = True
    serialization_format: Optional[str] = None
    pos_label: Any = None
    # XGBoost
    importance_types: Tuple[str, ...] = ("weight",)
    model_format: str = "ubj"
    # Lightning
    log_every_n_epoch: int = 1
    log_every_n_step: Optional[int] = None
    checkpoint: bool = True
    checkpoint_monitor: Optional[str] = "val_loss"
    checkpoint_mode: str = "min"
    checkpoint_save_best_only: bool = True
    checkpoint_save_weights_only: bool = False
    checkpoint_save_freq: Any = "epoch"


class _Thread(local):
    session: Optional[Session] = None
    quiet = 0


_thread = _Thread()
_lock = RLock()


class Library:
    """The autologging of one library: whether it is on, how, and what it replaced.

    ``patch`` is called with each module of ``packages`` once it is imported, whenever that is; ``oldest`` is the version from
    which on it is tested.
    """

    def __init__(
        self,
        name: str,
        packages: Tuple[str, ...],
        patch: Callable[[Library, ModuleType], None],
        oldest: Tuple[int, ...],
        *,
        unpatch: Optional[Callable[[], None]] = None,
    ) -> None:
        self.name = name
        self.settings = Settings()
        self.on = False
        self.chosen = False  # set up by the library's own autolog(), which `mlcli.autolog()` respects
        self.patches = patches.Patches()
        self._packages = packages
        self._patch = patch
        self._unpatch = unpatch
        self._oldest = oldest
        self._said: Set[Tuple[str, str]] = set()
        self._too_old = False

    def choose(self, settings: Settings, *, disable: bool) -> None:
        """What the library's own autolog() was called for."""
        if disable:
            self.disable(chosen=True)
        else:
            self.enable(settings, chosen=True)

    def enable(self, settings: Settings, *, chosen: bool) -> None:
        """Log from now on, with these settings; nothing is imported for it."""
        with _lock:
            self.settings = settings
            self.chosen = chosen
            self._said.clear()
            self._too_old = False
            if self.on:
                return
            self.on = True
            _on.add(self.name)
            if len(_on) == 1:
                patches.when_imported("joblib.parallel", _join)
            for package in self._packages:
                patches.when_imported(package, self._imported)

    def disable(self, *, chosen: bool) -> None:
        """Put back all that was replaced."""
        with _lock:
            self.chosen = chosen
            if not self.on:
                return
            self.on = False
            for package in self._packages:
                patches.forget(package, self._imported)
            self.patches.undo()
            if self._unpatch is not None:
                self._unpatch()
            _on.discard(self.name)
            if not _on:
                patches.forget("joblib.parallel", _join)
                _joblib.undo()

    def _imported(self, module: ModuleType) -> None:
        try:
            if module.__name__ in self._packages:
                self._too_old = not self._is_supported(module)
            if not self._too_old:
                self._patch(self, module)
        except Exception as error:  # noqa: BLE001 - an import of the user's goes on, whatever we make of it
            self.say(f"{module.__name__} is not logged automatically", error)

    def _is_supported(self, module: ModuleType) -> bool:
        text = str(getattr(module, "__version__", ""))
        version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
        if not version or version >= self._oldest:
            return True
        oldest = ".".join(map(str, self._oldest))
        if self.settings.disable_for_unsupported_versions:
            self.say(f"{module.__name__} {text} is not logged automatically: it is older than {oldest}")
            self.patches.undo()
            return False
        self.say(
            f"{module.__name__} {text} is older than {oldest}, from which on this is tested; it is tried all the same"
        )
        return True

    def say(self, text: str, error: Optional[BaseException] = None) -> None:
        """Tell something once, in one line on stderr."""
        reason = "" if error is None else f": {_one_line(error)}"
        key = (text, type(error).__name__)
        if self.settings.silent or key in self._said:
            return
        self._said.add(key)
        if sys.stderr is None:
            return
        try:
            print(f"mlcli: autolog: {text}{reason}", file=sys.stderr)
        except (OSError, ValueError):  # nobody reads it any more
            pass

    def attempt(self, what: str, step: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """The step's result; None when it fails, which is said once and breaks nothing."""
        try:
            return step(*args, **options)
        except Exception as error:  # noqa: BLE001 - what logging does wrong must not reach the training
            self.say(f"{what} not logged", error)
            return None


_on: Set[str] = set()


def _one_line(error: BaseException) -> str:
    text = error.message if isinstance(error, MlcliError) else str(error)
    lines = text.strip().splitlines()
    first = lines[0] if lines else ""
    return (f"{type(error).__name__}: " if not isinstance(error, MlcliError) else "") + first[:300]


class Session:
    """One training that is logged, and the run it is logged to."""

    def __init__(self, library: Library, label: str, run: fluent.ActiveRun, *, own: bool) -> None:
        self.library = library
        self.label = label  # the class or function that trains, for messages
        self.run = run
        self.own = own
        self.noted: Set[Tuple[str, str]] = set()  # datasets, by name and digest
        self.welcomes = ""  # the function that this training calls and that logs as a part of it

    @property
    def settings(self) -> Settings:
        return self.library.settings

    def attempt(self, what: str, step: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self.library.attempt(f"{what} of {self.label}", step, *args, **options)

    def log_params(self, params: Mapping[str, Any]) -> None:
        log_params(self.run, params)

    def end(self, failure: Optional[Type[BaseException]]) -> None:
        """End a run of autolog's own, and what the program started inside of it and left open."""
        if self.own:
            # `mlcli run` decides about its own run by the program's exit, not by a training that may have been one of many.
            self.run.__exit__(None if self.run.watched else failure, None, None)


def log_params(run: Any, params: Mapping[str, Any]) -> None:
    """Log what can be logged; an error afterwards names what cannot, e.g. because the run has another value already."""
    texts = {key: _shortened(value) for key, value in params.items()}
    try:
        run.log_params(texts)
        return
    except InvalidInput as error:
        first = error
    refused = 0
    for key, value in texts.items():
        try:
            run.log_params({key: value})
        except InvalidInput:
            refused += 1
    more = f" (and {refused - 1} more)" if refused > 1 else ""
    raise InvalidInput(first.message + more)


def _shortened(value: Any) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - an object that cannot be printed is not the other params' fault
        text = f"<{type(value).__name__}>"
    return text if len(text) <= rules.MAX_PARAM_VALUE else text[: rules.MAX_PARAM_VALUE - 3] + "..."


# -- who is the outermost


def current() -> Optional[Session]:
    """The training that this thread is in."""
    return _thread.session


def is_outermost() -> bool:
    """Whether a training that begins now is nobody's part."""
    return _thread.session is None and not _thread.quiet


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing in this block is logged."""
    _thread.quiet += 1
    try:
        yield
    finally:
        _thread.quiet -= 1


Before = Callable[[Session], Optional[Callable[[Any], None]]]


def train(library: Library, label: str, before: Before, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call ``original`` as the outermost training of this thread and log it.

    ``before`` logs what is known ahead and returns what is to be called with the result. Whatever they do, the caller gets
    the result, or the exception, of ``original``, which is called once.
    """
    if not library.on or not is_outermost():
        return original(*args, **kwargs)
    session = library.attempt(f"{label} is", _begin, library, label)
    if session is None:
        with quiet():  # what it trains inside would ask for a run again
            return original(*args, **kwargs)
    failure: Optional[Type[BaseException]] = Exception
    _thread.session = session
    try:
        after = session.attempt("what is known before the training", before, session)
        result = original(*args, **kwargs)
        failure = None
        if after is not None:
            session.attempt("what is known after the training", after, result)
        return result
    except KeyboardInterrupt:
        failure = KeyboardInterrupt
        raise
    finally:
        _thread.session = None
        session.attempt("the end", session.end, failure)


def _begin(library: Library, label: str) -> Optional[Session]:
    active = fluent.active_run()
    if active is not None:
        return None if library.settings.exclusive else Session(library, label, active, own=False)
    tags = {**(library.settings.extra_tags or {}), AUTOLOGGING: library.name}
    return Session(library, label, fluent.start_run(tags=tags), own=True)


def start_child(session: Session, tags: Mapping[str, str], time: int) -> Any:
    """A run below the session's, begun at ``time`` and active nowhere."""
    own = {**tags, context.PARENT_RUN: session.run.run_id, AUTOLOGGING: session.library.name}
    return fluent.start_aside(session.run, own, time)


def now() -> int:
    return journal.now()


# -- worker threads

_joblib = patches.Patches()


def _join(module: ModuleType) -> None:
    """Let a batch of tasks know, in the thread that runs it, whether the one that made it was training."""
    batch = getattr(module, "BatchedCalls", None)
    if not isinstance(batch, type) or patches.is_ours(vars(batch).get("__call__")):
        return

    def made(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.mlcli_is_inner = not is_outermost()

    def called(original: Callable[..., Any], self: Any) -> Any:
        if not getattr(self, "mlcli_is_inner", False):
            return original(self)
        with quiet():
            return original(self)

    _joblib.wrap(batch, "__init__", made)
    _joblib.wrap(batch, "__call__", called)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


LIBRARIES: Dict[str, str] = {  # library: the module of ours that knows it
    "sklearn": "mlcli.autolog.sklearn",
    "xgboost": "mlcli.autolog.xgboost",
    "lightgbm": "mlcli.autolog.lightgbm",
    "pytorch": "mlcli.autolog.lightning",
}
