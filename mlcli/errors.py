"""Every failure mlcli names, with the exit code, HTTP status and MLflow error code that tell of it.

    MlcliError               INTERNAL_ERROR            500   exit 1   a message, and a hint: what to do next
    ├─ InvalidInput          INVALID_PARAMETER_VALUE   400   exit 2
    │  ├─ FilterSyntaxError    the filter text and the position in it
    │  └─ ProjectError         file, line, column
    ├─ NotFound              RESOURCE_DOES_NOT_EXIST   404   exit 3
    ├─ AlreadyExists         RESOURCE_ALREADY_EXISTS   400   exit 1
    ├─ InvalidState          INVALID_STATE             400   exit 1   e.g. resuming a deleted run
    ├─ EnvError              INTERNAL_ERROR            500   exit 5   tail of the installer's output, path of its log
    ├─ RunFailed             INTERNAL_ERROR            500   the child's exit code, or 128 + signal
    ├─ ModelError            BAD_REQUEST               400   exit 1
    └─ StoreUnavailable      TEMPORARILY_UNAVAILABLE   503   exit 6   locked, damaged, read-only, wrong schema version

Exit 4 is a bug of ours (any other exception), 130 is ^C, 141 a closed pipe.
The faces (command line, server, REST client) read these attributes and decide nothing.
"""

from __future__ import annotations


class MlcliError(Exception):
    """A failure with a message for people and a hint that says what to do next."""

    error_code = "INTERNAL_ERROR"
    http_status = 500
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidInput(MlcliError):
    """What the caller gave cannot be used: a name, a value, an option."""

    error_code = "INVALID_PARAMETER_VALUE"
    http_status = 400
    exit_code = 2


class FilterSyntaxError(InvalidInput):
    """A search text that does not parse; ``str()`` shows the text with a caret under the place."""

    def __init__(self, message: str, *, text: str, position: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.text = text
        self.position = position

    def __str__(self) -> str:
        # One line of it, whatever its length: the caret must stand below the place.
        start = max(0, self.position - 70)
        shown = "".join(char if char.isprintable() else " " for char in self.text[start : self.position + 50])
        return f"{self.message}\n  {shown}\n  {' ' * (self.position - start)}^"


class ProjectError(InvalidInput):
    """A project, or a file of it, that cannot be used; knows file, line and column (both from 1)."""

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{place}: {self.message}" if place else self.message


class NotFound(MlcliError):
    error_code = "RESOURCE_DOES_NOT_EXIST"
    http_status = 404
    exit_code = 3


class AlreadyExists(MlcliError):
    error_code = "RESOURCE_ALREADY_EXISTS"
    http_status = 400


class InvalidState(MlcliError):
    error_code = "INVALID_STATE"
    http_status = 400


class EnvError(MlcliError):
    """An environment that could not be built; ``tail`` is the end of the installer's output, ``log`` the whole of it."""

    exit_code = 5

    def __init__(self, message: str, *, tail: str = "", log: str | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.tail = tail
        self.log = log


class RunFailed(MlcliError):
    """A run whose child ended with a code other than 0; ``code`` is what mlcli exits with (128 + signal for a signal)."""

    def __init__(self, message: str, *, run_id: str, code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run_id = run_id
        self.exit_code = code


class ModelError(MlcliError):
    error_code = "BAD_REQUEST"
    http_status = 400


class StoreUnavailable(MlcliError):
    error_code = "TEMPORARILY_UNAVAILABLE"
    http_status = 503
    exit_code = 6
