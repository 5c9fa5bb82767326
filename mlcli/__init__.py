"""mlcli: runs any machine learning project from one command and remembers every run.

The names below are imported when they are first used: `import mlcli` itself costs next to nothing.
"""

from __future__ import annotations

from mlcli._version import __version__ as __version__

TYPE_CHECKING = False  # typing's own costs 2 to 8 ms, more than all of this import may

if TYPE_CHECKING:  # for editors and type checkers; a test holds this list and the table equal
    from mlcli import artifacts as artifacts
    from mlcli import client as client
    from mlcli import data as data
    from mlcli import entities as entities
    from mlcli import errors as errors
    from mlcli import exceptions as exceptions
    from mlcli import lightgbm as lightgbm
    from mlcli import models as models
    from mlcli import projects as projects
    from mlcli import pyfunc as pyfunc
    from mlcli import pytorch as pytorch
    from mlcli import sklearn as sklearn
    from mlcli import tracking as tracking
    from mlcli import xgboost as xgboost
    from mlcli.autolog import autolog as autolog
    from mlcli.client import Client as Client
    from mlcli.client import MlflowClient as MlflowClient
    from mlcli.errors import MlcliError as MlcliError
    from mlcli.evaluation.result import EvaluationResult as EvaluationResult
    from mlcli.evaluation.result import MetricThreshold as MetricThreshold
    from mlcli.evaluation.result import evaluate as evaluate
    from mlcli.evaluation.result import validate_evaluation_results as validate_evaluation_results
    from mlcli.exceptions import MlflowException as MlflowException
    from mlcli.fluent import ActiveRun as ActiveRun
    from mlcli.fluent import active_run as active_run
    from mlcli.fluent import create_experiment as create_experiment
    from mlcli.fluent import delete_experiment as delete_experiment
    from mlcli.fluent import delete_run as delete_run
    from mlcli.fluent import delete_tag as delete_tag
    from mlcli.fluent import end_run as end_run
    from mlcli.fluent import flush_async_logging as flush_async_logging
    from mlcli.fluent import get_artifact_uri as get_artifact_uri
    from mlcli.fluent import get_experiment as get_experiment
    from mlcli.fluent import get_experiment_by_name as get_experiment_by_name
    from mlcli.fluent import get_parent_run as get_parent_run
    from mlcli.fluent import get_run as get_run
    from mlcli.fluent import get_tracking_uri as get_tracking_uri
    from mlcli.fluent import is_tracking_uri_set as is_tracking_uri_set
    from mlcli.fluent import last_active_run as last_active_run
    from mlcli.fluent import load_table as load_table
    from mlcli.fluent import log_artifact as log_artifact
    from mlcli.fluent import log_artifacts as log_artifacts
    from mlcli.fluent import log_dict as log_dict
    from mlcli.fluent import log_figure as log_figure
    from mlcli.fluent import log_image as log_image
    from mlcli.fluent import log_input as log_input
    from mlcli.fluent import log_inputs as log_inputs
    from mlcli.fluent import log_metric as log_metric
    from mlcli.fluent import log_metrics as log_metrics
    from mlcli.fluent import log_param as log_param
    from mlcli.fluent import log_params as log_params
    from mlcli.fluent import log_table as log_table
    from mlcli.fluent import log_text as log_text
    from mlcli.fluent import search_experiments as search_experiments
    from mlcli.fluent import search_runs as search_runs
    from mlcli.fluent import set_experiment as set_experiment
    from mlcli.fluent import set_experiment_tag as set_experiment_tag
    from mlcli.fluent import set_experiment_tags as set_experiment_tags
    from mlcli.fluent import set_tag as set_tag
    from mlcli.fluent import set_tags as set_tags
    from mlcli.fluent import set_tracking_uri as set_tracking_uri
    from mlcli.fluent import start_run as start_run
    from mlcli.registry import delete_logged_model as delete_logged_model
    from mlcli.registry import delete_logged_model_tag as delete_logged_model_tag
    from mlcli.registry import finalize_logged_model as finalize_logged_model
    from mlcli.registry import get_logged_model as get_logged_model
    from mlcli.registry import get_registry_uri as get_registry_uri
    from mlcli.registry import initialize_logged_model as initialize_logged_model
    from mlcli.registry import log_model_params as log_model_params
    from mlcli.registry import register_model as register_model
    from mlcli.registry import search_logged_models as search_logged_models
    from mlcli.registry import search_model_versions as search_model_versions
    from mlcli.registry import search_registered_models as search_registered_models
    from mlcli.registry import set_logged_model_tags as set_logged_model_tags
    from mlcli.registry import set_model_version_tag as set_model_version_tag
    from mlcli.registry import set_registry_uri as set_registry_uri
    from mlcli.submit import run as run

_MODULES = (
    "artifacts",
    "client",
    "data",
    "entities",
    "errors",
    "exceptions",
    "lightgbm",
    "models",
    "projects",
    "pyfunc",
    "pytorch",
    "sklearn",
    "tracking",
    "xgboost",
)
_NAMES = {
    "mlcli.autolog": "autolog",
    "mlcli.client": "Client MlflowClient",
    "mlcli.errors": "MlcliError",
    "mlcli.evaluation.result": "EvaluationResult MetricThreshold evaluate validate_evaluation_results",
    "mlcli.exceptions": "MlflowException",
    "mlcli.fluent": "ActiveRun active_run create_experiment delete_experiment delete_run delete_tag end_run "
    "flush_async_logging get_artifact_uri get_experiment get_experiment_by_name get_parent_run get_run get_tracking_uri "
    "is_tracking_uri_set last_active_run load_table log_artifact log_artifacts log_dict log_figure log_image log_input "
    "log_inputs log_metric log_metrics log_param log_params log_table log_text search_experiments search_runs "
    "set_experiment set_experiment_tag set_experiment_tags set_tag set_tags set_tracking_uri start_run",
    "mlcli.registry": "delete_logged_model delete_logged_model_tag finalize_logged_model get_logged_model get_registry_uri "
    "initialize_logged_model log_model_params register_model search_logged_models search_model_versions "
    "search_registered_models set_logged_model_tags set_model_version_tag set_registry_uri",
    "mlcli.submit": "run",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_HOMES})
