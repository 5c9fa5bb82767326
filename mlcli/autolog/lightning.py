"""PyTorch Lightning's autolog: each `Trainer.fit`, through a callback, under MLflow's names.

Only Lightning tells when an epoch ends and which numbers count. A loop of one's own over a ``torch.nn.Module`` is not logged:
that is said once, when such a loop takes its first step.
"""

from __future__ import annotations

import functools
from importlib import import_module
from types import ModuleType
from typing import Any, Callable, Dict, Mapping, Optional, Set, Tuple, Union

from mlcli.autolog import calls
from mlcli.autolog.session import Library, Session, Settings, is_outermost, train
from mlcli.errors import InvalidInput
from mlcli.live import LiveRun

_TRAINERS = ("lightning.pytorch.trainer.trainer", "pytorch_lightning.trainer.trainer")
_OPTIMIZERS = "torch.optim.optimizer"


def autolog(
    log_every_n_epoch: int = 1,
    log_every_n_step: Optional[int] = None,
    log_models: bool = True,
    log_datasets: bool = True,
    disable: bool = False,
    exclusive: bool = False,
    disable_for_unsupported_versions: bool = False,
    silent: bool = False,
    registered_model_name: Optional[str] = None,
    extra_tags: Optional[Mapping[str, str]] = None,
    checkpoint: bool = True,
    checkpoint_monitor: Optional[str] = "val_loss",
    checkpoint_mode: str = "min",
    checkpoint_save_best_only: bool = True,
    checkpoint_save_weights_only: bool = False,
    checkpoint_save_freq: Union[int, str] = "epoch",
    log_model_signatures: bool = True,
) -> None:
    """Log every training with PyTorch Lightning from now on; call it again to change how, with ``disable=True`` to stop.

    Metrics are logged every ``log_every_n_epoch`` epochs and, if ``log_every_n_step`` is given, those of steps as well.
    A checkpoint is kept whenever ``checkpoint_monitor`` is better than before, or with ``checkpoint_save_best_only=False``
    at every epoch (or ``checkpoint_save_freq`` steps). Loops of one's own over bare torch modules are not logged.
    """
    if checkpoint_mode not in ("min", "max"):
        raise InvalidInput(f"checkpoint_mode is 'min' or 'max', not {checkpoint_mode!r}")
    if checkpoint_save_freq != "epoch" and (not isinstance(checkpoint_save_freq, int) or checkpoint_save_freq < 1):
        raise InvalidInput(f"checkpoint_save_freq is 'epoch' or a number of steps, not {checkpoint_save_freq!r}")
    for name, value in (("log_every_n_epoch", log_every_n_epoch), ("log_every_n_step", log_every_n_step)):
        if value is not None and value < 1:
            raise InvalidInput(f"{name} is at least 1, not {value}")
    LIBRARY.choose(
        Settings(
            log_every_n_epoch=log_every_n_epoch,
            log_every_n_step=log_every_n_step,
            log_models=log_models,
            log_datasets=log_datasets,
            exclusive=exclusive,
            disable_for_unsupported_versions=disable_for_unsupported_versions,
            silent=silent,
            registered_model_name=registered_model_name,
            extra_tags=extra_tags,
            checkpoint=checkpoint,
            checkpoint_monitor=checkpoint_monitor,
            checkpoint_mode=checkpoint_mode,
            checkpoint_save_best_only=checkpoint_save_best_only,
            checkpoint_save_weights_only=checkpoint_save_weights_only,
            checkpoint_save_freq=checkpoint_save_freq,
            log_model_signatures=log_model_signatures,
        ),
        disable=disable,
    )


# -- what is patched

_hook: Any = None  # of torch, until the first step of an optimizer


def _patch(library: Library, module: ModuleType) -> None:
    if module.__name__ in _TRAINERS:
        library.patches.wrap(module.Trainer, "fit", functools.partial(_fit, library))
        library.patches.wrap(module.Trainer, "test", functools.partial(_test, library))
    elif module.__name__ == _OPTIMIZERS:
        _watch_bare_loops(library, module)


def _watch_bare_loops(library: Library, module: ModuleType) -> None:
    global _hook  # noqa: PLW0603 - torch has one list of such hooks for all optimizers
    register = getattr(module, "register_optimizer_step_post_hook", None)
    if register is None or _hook is not None:
        return

    def first_step(*_: Any) -> None:
        _stop_watching()
        if is_outermost():
            library.say(
                "a loop over a bare torch module is not logged, only PyTorch Lightning's Trainer.fit is:"
                " log what counts with mlcli.log_metric"
            )

    _hook = register(first_step)


def _stop_watching() -> None:
    global _hook
    hook, _hook = _hook, None
    if hook is not None:
        hook.remove()


# -- one training


def _fit(library: Library, original: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    if not getattr(trainer, "is_global_zero", True):  # the others of a distributed training
        return original(trainer, *args, **kwargs)
    before_us = trainer.callbacks

    def before(session: Session) -> Callable[[Any], None]:
        model = args[0] if args else kwargs.get("model")
        stopping = _early_stopping(trainer)
        if stopping is not None:
            session.attempt("the params of early stopping", session.log_params, _stop_params(stopping))
        watch = _callback(trainer, session)
        # Before the checkpoints, which Lightning wants last.
        last = next((i for i, item in enumerate(before_us) if _is_checkpoint(item)), len(before_us))
        trainer.callbacks = [*before_us[:last], watch, *before_us[last:]]

        def after(_: Any) -> None:
            if stopping is not None:
                session.attempt("how it stopped", session.run.log_metrics, _stop_metrics(stopping))
            session.attempt("the model's summary", _log_summary, session, trainer, model)
            session.attempt("the model", _log_model, session, model, watch.mlcli_example)
            _trained.add(trainer, session.run)
            if stopping is not None and session.settings.log_models:
                session.attempt("the best checkpoint", _log_best_checkpoint, session, trainer)

        return after

    try:
        return train(library, "Trainer.fit", before, original, trainer, *args, **kwargs)
    finally:
        if trainer.callbacks is not before_us:
            trainer.callbacks = [item for item in trainer.callbacks if not hasattr(item, "mlcli_example")]


_trained = calls.Known()


def _test(library: Library, original: Callable[..., Any], trainer: Any, *args: Any, **kwargs: Any) -> Any:
    """What a trainer's test says after its training belongs to the same run."""
    result = original(trainer, *args, **kwargs)
    run = _trained.get(trainer) if library.on else None
    if run is not None:
        library.attempt("the test is", _log_test, run, trainer)
    return result


def _log_test(run: LiveRun, trainer: Any) -> None:
    run.set_tags({"Mode": "testing"})
    run.log_metrics({name: float(value) for name, value in trainer.callback_metrics.items()})


def _package(trainer: Any) -> str:
    """`lightning.pytorch` or `pytorch_lightning`: the trainer's own, or its parent's."""
    for kind in type(trainer).__mro__:
        for name in ("lightning.pytorch", "pytorch_lightning"):
            if kind.__module__.startswith(name + "."):
                return name
    raise InvalidInput(f"a {type(trainer).__name__} is no trainer of Lightning's")


def _of(trainer: Any, name: str) -> Any:
    return import_module(f"{_package(trainer)}.{name}")


def _is_checkpoint(callback: Any) -> bool:
    return any([kind.__name__ == "Checkpoint" for kind in type(callback).__mro__])


def _early_stopping(trainer: Any) -> Any:
    kind = _of(trainer, "callbacks").EarlyStopping
    return next((item for item in trainer.callbacks if isinstance(item, kind)), None)


def _stop_params(stopping: Any) -> Dict[str, Any]:
    names = ("monitor", "mode", "patience", "min_delta", "stopped_epoch")
    return {name: getattr(stopping, name) for name in names if hasattr(stopping, name)}


def _stop_metrics(stopping: Any) -> Dict[str, float]:
    if not stopping.stopped_epoch:
        return {}
    return {
        "stopped_epoch": stopping.stopped_epoch,
        "restored_epoch": stopping.stopped_epoch - max(1, stopping.patience),
        "best_score": float(stopping.best_score),
        "wait_count": stopping.wait_count,
    }


def _log_summary(session: Session, trainer: Any, model: Any) -> None:
    summary = _of(trainer, "utilities.model_summary").ModelSummary(model, max_depth=-1)
    session.run.log_text(str(summary), "model_summary.txt")


def _log_model(session: Session, model: Any, example: Optional[Tuple[Any, Any]]) -> None:
    from mlcli.models import infer_signature

    settings = session.settings
    if not settings.log_models:
        return
    signature = None
    if settings.log_model_signatures and example is not None:
        signature = session.attempt("the signature", lambda: infer_signature(*example))
    log_model = import_module("mlcli.models.pytorch").log_model
    log_model(model, name="model", signature=signature, registered_model_name=settings.registered_model_name)


def _log_best_checkpoint(session: Session, trainer: Any) -> None:
    path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if path:
        session.run.artifacts.put(path, "restored_model_checkpoint")


def _callback(trainer: Any, session: Session) -> Any:
    """A callback of the trainer's Lightning that logs to the session's run."""
    base = _of(trainer, "callbacks").Callback
    watch = _Watch(session)

    class Log(base):  # type: ignore[misc, valid-type]
        """What mlcli logs of a training; pickled, e.g. for another process, it logs nothing."""

        @property
        def mlcli_example(self) -> Any:
            return watch.example

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            session.attempt("the params", watch.start, trainer, pl_module)

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            session.attempt("the metrics of a step", watch.step, trainer)

        def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
            session.attempt("the metrics of an epoch", watch.epoch, trainer)

        def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
            del trainer
            session.attempt("the model's first input", watch.release, pl_module)

        def on_exception(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            self.on_fit_end(trainer, pl_module)

        def __reduce__(self) -> Tuple[Any, ...]:
            return base, ()

    return Log()


class _Watch:
    """What a callback knows between its calls."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.run: LiveRun = session.run
        self.settings = session.settings
        self.example: Optional[Tuple[Any, Any]] = None
        self._of_steps: Set[str] = set()
        self._of_epochs: Set[str] = set()
        self._steps = 0
        self._best: Optional[float] = None
        self._handle: Any = None

    def start(self, trainer: Any, module: Any) -> None:
        self.run.set_tags({"Mode": "training"})
        params: Dict[str, Any] = {"epochs": trainer.max_epochs}
        if trainer.optimizers:
            optimizer = trainer.optimizers[0]
            params["optimizer_name"] = type(getattr(optimizer, "_optimizer", optimizer)).__name__
            params.update(getattr(optimizer, "defaults", {}))
        self.session.log_params(params)
        if self.settings.log_models and self.settings.log_model_signatures:
            self._handle = module.register_forward_hook(self._keep_example)

    def _keep_example(self, module: Any, given: Tuple[Any, ...], answer: Any) -> None:
        if len(given) == 1 and all([hasattr(part, "detach") for part in (given[0], answer)]):
            self.example = self.session.attempt("the model's first input", _arrays, given[0], answer)
        self.release(module)

    def release(self, module: Any) -> None:
        del module
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.remove()

    def step(self, trainer: Any) -> None:
        self._steps += 1
        every = self.settings.log_every_n_step
        if every:
            names = set(trainer.callback_metrics)
            mine = {name for name in names if name not in self._of_epochs and f"{name}_step" not in names}
            self._of_steps |= mine
            if (trainer.global_step // max(1, len(trainer.optimizers)) + 1) % every == 0:  # MLflow's steps
                self._log(trainer, mine, trainer.global_step)
        often = self.settings.checkpoint_save_freq
        if self.settings.checkpoint and isinstance(often, int) and self._steps % often == 0:
            self.session.attempt("a checkpoint", self._checkpoint, trainer)

    def epoch(self, trainer: Any) -> None:
        mine = set(trainer.callback_metrics) - self._of_steps
        self._of_epochs |= mine
        if (trainer.current_epoch + 1) % self.settings.log_every_n_epoch == 0:
            self._log(trainer, mine, trainer.current_epoch)
        if self.settings.checkpoint and self.settings.checkpoint_save_freq == "epoch":
            self.session.attempt("a checkpoint", self._checkpoint, trainer)

    def _log(self, trainer: Any, names: Set[str], step: int) -> None:
        if not trainer.sanity_checking:
            self.run.log_metrics({name: float(trainer.callback_metrics[name]) for name in sorted(names)}, step)

    def _checkpoint(self, trainer: Any) -> None:
        """Keep a checkpoint in MLflow's place: the best so far, or one for each epoch or so many steps."""
        settings = self.settings
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        weights = ".weights" if settings.checkpoint_save_weights_only else ""
        if settings.checkpoint_save_best_only:
            now = metrics.get(settings.checkpoint_monitor or "")
            if now is None or not self._is_better(now):
                return
            self._best = now
            folder, prefix = "checkpoints", "latest_"
        elif settings.checkpoint_save_freq == "epoch":
            folder, prefix = f"checkpoints/epoch_{trainer.current_epoch}", ""
        else:
            folder, prefix = f"checkpoints/global_step_{trainer.global_step}", ""
        about = {**metrics, "epoch": trainer.current_epoch, "global_step": trainer.global_step}
        with self.run.artifacts.writing(f"{folder}/{prefix}checkpoint{weights}.pth", ".pth") as path:
            # Not trainer.save_checkpoint, which waits for the other processes of a distributed training.
            content = trainer._checkpoint_connector.dump_checkpoint(settings.checkpoint_save_weights_only)  # noqa: SLF001
            trainer.strategy.save_checkpoint(content, path)
        self.run.log_dict(about, f"{folder}/{prefix}checkpoint_metrics.json")

    def _is_better(self, now: float) -> bool:
        if self._best is None:
            return now == now  # noqa: PLR0124 - NaN is better than nothing else
        return now < self._best if self.settings.checkpoint_mode == "min" else now > self._best


def _arrays(given: Any, answer: Any) -> Tuple[Any, Any]:
    return given.detach().cpu().numpy(), answer.detach().cpu().numpy()


LIBRARY = Library(
    "pytorch",
    ("torch.optim", "lightning", "pytorch_lightning"),
    _patch,
    (1, 6),
    unpatch=_stop_watching,
)
