"""The model directory that MLflow can load too: saving, loading, signatures."""

from mlcli.models.signature import ModelSignature, infer_signature

__all__ = ["ModelSignature", "infer_signature"]
