"""mlcli: runs any machine learning project from one command and remembers every run."""

from mlcli._version import __version__ as __version__
