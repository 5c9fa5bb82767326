"""The version, alone so that `mlcli --version` need not import anything else."""

__version__ = "0.1.0"
