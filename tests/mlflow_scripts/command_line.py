"""MLflow's command line, once for each line of arguments on stdin (a JSON list); answers ``[exit code, output]``.

Each command is a process of its own, forked from one that has imported MLflow: the import takes seconds.
"""

import json
import os
import sys
import traceback

from mlflow.cli import cli


def call(arguments):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            cli.main(arguments, prog_name="mlflow")
        except SystemExit as end:
            code = end.code or 0
        except BaseException:  # noqa: BLE001 - told, and the child ends
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 1)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
