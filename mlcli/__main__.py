"""`python -m mlcli` is the command line."""

from mlcli.cli import main

main()
