"""Replaces attributes of other people's classes and modules and puts them back; waits for modules to be imported.

What is put back is what stood there, byte for byte: the same object, or nothing where the attribute was inherited. An attribute
that somebody else has replaced meanwhile stays theirs; our function below it then passes every call through.
"""

from __future__ import annotations

import functools
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

_MISSING: Any = object()


class _Patch(NamedTuple):
    owner: Any
    name: str
    before: Any
    after: Any


class Patches:
    """What was replaced, in order."""

    def __init__(self) -> None:
        self._done: List[_Patch] = []

    def replace(self, owner: Any, name: str, after: Any) -> None:
        self._done.append(_Patch(owner, name, vars(owner).get(name, _MISSING), after))
        setattr(owner, name, after)

    def wrap(self, owner: Any, name: str, call: Callable[..., Any]) -> None:
        """Let ``call(original, *args, **kwargs)`` answer instead of ``owner.name``: a function, or a method of a class.

        scikit-learn's methods that are there only if a part has them are descriptors with the function in ``fn``.
        """
        raw = _raw(owner, name)
        if callable(raw) and not isinstance(raw, (staticmethod, classmethod, type)) and not hasattr(raw, "fn"):
            self.replace(owner, name, wrapper(raw, call, owner, name))
        elif callable(getattr(raw, "fn", None)) and not is_ours(raw.fn):
            self.replace(raw, "fn", wrapper(raw.fn, call))

    def undo(self) -> None:
        for patch in reversed(self._done):
            if vars(patch.owner).get(patch.name) is not patch.after:
                continue
            if patch.before is _MISSING:
                delattr(patch.owner, patch.name)
            else:
                setattr(patch.owner, patch.name, patch.before)
        self._done.clear()


def wrapper(original: Callable[..., Any], call: Callable[..., Any], owner: Any = None, name: str = "") -> Any:
    @functools.wraps(original)
    def ours(*args: Any, **kwargs: Any) -> Any:
        return call(original, *args, **kwargs)

    if isinstance(owner, type):  # pickled by this name
        ours.__qualname__ = f"{owner.__qualname__}.{name}"
        ours.__module__ = owner.__module__
    ours.__mlcli__ = True  # type: ignore[attr-defined]
    return ours


def is_ours(function: Any) -> bool:
    return getattr(function, "__mlcli__", False) is True


def original_of(function: Any) -> Any:
    """The function that ours stands before, or the function itself."""
    while is_ours(function):
        function = function.__wrapped__
    return function


def _raw(owner: Any, name: str) -> Any:
    """The attribute as it stands in the class (or in a parent of it), no descriptor asked."""
    for place in getattr(owner, "__mro__", (owner,)):
        if name in vars(place):
            return original_of(vars(place)[name]) if place is not owner else vars(place)[name]
    return None


# -- waiting for imports

Hook = Callable[[ModuleType], None]


class _Imports:
    """A finder that finds nothing itself: it has the module that others find reported once it is imported."""

    def __init__(self) -> None:
        self.waiting: Dict[str, List[Hook]] = {}  # by the name of a package: it and everything in it

    def hooks(self, name: str) -> List[Hook]:
        return [hook for package, hooks in self.waiting.items() if _is_in(name, package) for hook in hooks]

    def find_spec(
        self, name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        if name.partition(".")[0] not in _ROOTS or not self.hooks(name):
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = find(name, path, target) if find is not None and finder is not self else None
            if spec is not None:
                self._report(spec)
                return spec  # type: ignore[no-any-return]
        return None

    def _report(self, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        if not hasattr(loader, "exec_module") or not hasattr(loader, "__dict__"):
            return

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            loader.exec_module(module)
            for hook in self.hooks(module.__name__):
                hook(module)

        loader.exec_module = exec_module


_imports = _Imports()
_ROOTS = frozenset("sklearn joblib xgboost lightgbm torch lightning pytorch_lightning".split())


def _is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def when_imported(package: str, hook: Hook) -> None:
    """Call ``hook`` with each module of ``package`` that is imported already, and with each one that will be."""
    _imports.waiting.setdefault(package, []).append(hook)
    if _imports not in sys.meta_path:
        sys.meta_path.insert(0, _imports)
    for name, module in list(sys.modules.items()):
        if _is_in(name, package) and isinstance(module, ModuleType):
            hook(module)


def forget(package: str, hook: Hook) -> None:
    """Stop waiting."""
    hooks = _imports.waiting.get(package, [])
    if hook in hooks:
        hooks.remove(hook)
    if not hooks:
        _imports.waiting.pop(package, None)
    if not _imports.waiting and _imports in sys.meta_path:
        sys.meta_path.remove(_imports)
