"""The classes of custom Python models. They travel inside of a model, by value, so that MLflow loads it without mlcli.

Therefore nothing here refers to another module of mlcli, and what MLflow asks of such a class is answered here.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional


class PythonModelContext:
    """What a Python model finds when it is loaded: ``artifacts``, paths of its files by name, and ``model_config``."""

    def __init__(self, artifacts: Mapping[str, str], model_config: Optional[Mapping[str, Any]] = None) -> None:
        self.artifacts: Dict[str, str] = dict(artifacts)
        self.model_config = model_config


class _NoHints:
    input = output = None


class PythonModel:
    """A model of your own: subclass it and write ``predict(self, context, model_input, params=None)``.

    ``context`` and ``params`` may be left out. ``load_context`` reads the artifacts, once, when the model is loaded.
    """

    def load_context(self, context: Any) -> None:
        """Read what ``predict`` needs from ``context.artifacts``."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        raise NotImplementedError("a PythonModel needs a method predict(self, context, model_input, params=None)")

    def predict_stream(self, context: Any, model_input: Any, params: Any = None) -> Any:
        raise NotImplementedError("this model does not answer in pieces")

    @property
    def predict_type_hints(self) -> Any:  # MLflow asks for it
        return _NoHints()


class FunctionModel(PythonModel):
    """A model that is a function of the input, and perhaps of ``params``."""

    def __init__(self, func: Any) -> None:
        self.func = func

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002 - the method's form
        import inspect

        if "params" in inspect.signature(self.func).parameters:
            return self.func(model_input, params=params)
        return self.func(model_input)
