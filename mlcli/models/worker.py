"""A process in the model's environment that only predicts: bodies in, answers out, over a socket that it inherits.

`python -m mlcli.models.worker FD`. The first message is a job: a JSON object that says which model, and whether its rows
come over the socket (serving) or from a file (`predict`). The first answer says what the model is, or why it is none.

    request  length u32, id u64, kind u8           and a body of that length
    answer   length u32, id u64, status u16, us u32    and a body; us are the microseconds that it took

Whoever holds the other end may send many requests before it reads an answer; they are answered in their order.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
import types
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from mlcli.errors import InvalidInput, MlcliError, ModelError
from mlcli.models import payloads
from mlcli.models.schema import Columns, Nested, Params, Records, Rows, Schema

REQUEST = struct.Struct("<IQB")
ANSWER = struct.Struct("<IQHI")
JOB, JSON, CSV, PARQUET, INFER = range(5)
KINDS = {payloads.JSON: JSON, payloads.CSV: CSV, payloads.PARQUET: PARQUET}
MODEL_RAISED = "the model cannot predict for this input"  # begins the message of what a model raised
OUT_OF_MEMORY = 70  # the exit code of a worker that ran out of memory, and is not to be trusted with more
_READERS: Dict[int, Callable[[bytes, Optional[Schema]], payloads.Asked]] = {
    JSON: payloads.read_json,
    CSV: payloads.read_csv,
    PARQUET: payloads.read_parquet,
    INFER: payloads.read_infer,
}
_MANY = 100  # kinds of failures of a model whose tracebacks are worth printing


class Message(NamedTuple):
    """A request as it came."""

    number: int
    kind: int
    body: bytes


class Link:
    """The worker's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._start = 0

    def next(self) -> Optional[Message]:
        """The next request, waited for; None when the other end is closed."""
        while True:
            found = self.waiting()
            if found is not None:
                return found
            if not self._more():
                return None

    def waiting(self) -> Optional[Message]:
        """The next request, if all of it has come."""
        have = len(self._buffer) - self._start
        if have < REQUEST.size:
            return None
        length, number, kind = REQUEST.unpack_from(self._buffer, self._start)
        if have < REQUEST.size + length:
            return None
        begin = self._start + REQUEST.size
        self._start = begin + length
        return Message(number, kind, bytes(memoryview(self._buffer)[begin : self._start]))

    def together(self, first: Message, size: int, seconds: float) -> List[Message]:
        """``first`` and what comes within ``seconds`` of it, at most ``size`` in all."""
        found = [first]
        until = time.monotonic() + seconds
        while len(found) < size:
            one = self.waiting()
            if one is not None:
                found.append(one)
                continue
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._sock], [], [], left)[0] or not self._more():
                break
        return found

    def _more(self) -> bool:
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        try:
            part = self._sock.recv(1 << 20)
        except ConnectionError:
            return False
        self._buffer += part
        return bool(part)

    def answer(self, number: int, status: int, body: bytes, seconds: float = 0.0) -> None:
        self._sock.sendall(ANSWER.pack(len(body), number, status, min(int(seconds * 1e6), 2**32 - 1)) + body)


class Predictor:
    """A loaded model with its signature, ready for rows in any form."""

    def __init__(self, model: Any, name: str = "model", version: str = "1") -> None:
        signature = model.signature
        self.model = model
        self.name, self.version = name, version
        self.schema = Schema.of(signature.inputs if signature else None)
        self.params = Params.of(signature.params if signature else None)
        self._param_names = [str(item["name"]) for item in (signature.params or ())] if signature else []
        self._outputs = (
            [str(item["name"]) for item in (signature.outputs or ()) if item.get("name")] if signature else []
        )
        self._array = self._for_arrays()
        self.by_array = self._array is not None and self.schema is not None and self.schema.numeric
        self._told: Dict[str, None] = {}

    def _for_arrays(self) -> Optional[Callable[[Any], Any]]:
        how = self.model.metadata["flavors"].get("python_function", {})
        if how.get("loader_module") != "mlflow.sklearn":
            return None
        from mlcli.models.arrays import on_arrays

        return on_arrays(self.model.unwrap(), str(how.get("predict_fn") or "predict"))

    def describe(self) -> Dict[str, Any]:
        """What a gateway can tell of the model without loading it."""
        signature = self.model.signature
        return {
            "flavors": sorted(self.model.metadata["flavors"]),
            "signature": {} if signature is None else signature._asdict(),
            "example": _example(self.model),
            "by_array": self.by_array,
            "python": ".".join(map(str, sys.version_info[:3])),
            "pid": os.getpid(),
        }

    # -- one request

    def read(self, kind: int, body: bytes) -> payloads.Asked:
        if kind == JSON:
            return payloads.read_json(body, self.schema, self._param_names)
        return _READERS[kind](body, self.schema)

    def data(self, given: Any, first_row: int = 0) -> Any:
        """What the model takes: an array where it can, else what MLflow would give it."""
        schema = self.schema
        if self.by_array and schema is not None:
            return schema.array(given, first_row)
        if schema is None:
            return _as_it_is(given)
        if isinstance(given, dict):  # a chat
            given = Records([given])
        if schema.tensors:
            return schema.tensor(given)
        return schema.frame(given, first_row)

    def predict(self, data: Any, params: Any = None) -> Any:
        if self._array is not None and type(data).__module__ == "numpy" and data.ndim == 2:
            return self._array(data)
        model = self.model
        if model.takes_params:
            return model.predict_fn(data, params=self.params.fill(params) if self.params else {})
        return model.predict_fn(data)

    def result(self, asked: payloads.Asked, found: Any) -> bytes:
        if asked.infer is not None:
            return payloads.infer_answer(found, asked.infer, self.name, self.version, self._outputs)
        return payloads.predictions(found, bare=asked.bare)

    def answer(self, message: Message) -> Tuple[int, bytes]:
        """Status and body for one request; MemoryError is not caught here."""
        try:
            asked = self.read(message.kind, message.body)
            return 200, self.result(asked, self.predict(self.data(asked.given), asked.params))
        except MemoryError:
            raise
        except MlcliError as error:
            return refusal(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the model is somebody else's code
            return 400, payloads.failure("BAD_REQUEST", self.told(error))

    def told(self, error: BaseException) -> str:
        """The message for what a model raised; its traceback goes to the log, once for each kind."""
        text = f"{type(error).__name__}: {error}"
        if text[:200] not in self._told and len(self._told) < _MANY:
            self._told[text[:200]] = None
            import traceback

            traceback.print_exception(type(error), error, error.__traceback__)
        return f"{MODEL_RAISED}: {text[:2000]}"

    # -- several at once

    def answer_together(self, messages: Sequence[Message]) -> List[Tuple[int, bytes]]:
        """The same answers, from one prediction for the rows of all where they can be put one after another."""
        stacks: Dict[Any, List[Tuple[int, payloads.Asked, Any]]] = {}
        answers: Dict[int, Tuple[int, bytes]] = {}
        for place, message in enumerate(messages):
            try:
                asked = self.read(message.kind, message.body)
                data = self.data(asked.given)
                key = _stackable(data) if not asked.params and not asked.bare else None
            except MemoryError:
                raise
            except (Exception, SystemExit):  # noqa: BLE001 - told below, alone
                key = None
            if key is None:
                answers[place] = self.answer(message)
            else:
                stacks.setdefault(key, []).append((place, asked, data))
        for parts in stacks.values():
            together = self._stacked([data for _, _, data in parts]) if len(parts) > 1 else None
            for number, (place, asked, _) in enumerate(parts):
                if together is None:
                    answers[place] = self.answer(messages[place])
                else:
                    answers[place] = self._finished(asked, together[number])
        return [answers[place] for place in range(len(messages))]

    def _finished(self, asked: payloads.Asked, found: Any) -> Tuple[int, bytes]:
        try:
            return 200, self.result(asked, found)
        except MlcliError as error:
            return refusal(error)

    def _stacked(self, parts: List[Any]) -> Optional[List[Any]]:
        """One prediction for all parts, cut up again; None where that cannot be: each is then predicted alone."""
        import numpy as np

        try:
            if hasattr(parts[0], "columns"):
                import pandas as pd

                found = self.predict(pd.concat(parts, ignore_index=True))
            else:
                found = self.predict(np.asfortranarray(np.concatenate(parts)))
            lengths = [len(part) for part in parts]
            if len(found) != sum(lengths):
                return None
        except MemoryError:
            raise
        except (Exception, SystemExit):  # noqa: BLE001 - the rows of one may be at fault: alone, it is told
            return None
        ends = [sum(lengths[: number + 1]) for number in range(len(lengths))]
        return [found[end - length : end] for end, length in zip(ends, lengths)]


def refusal(error: MlcliError) -> Tuple[int, bytes]:
    more = {"error_class": "SCHEMA_ENFORCEMENT_FAILED"} if isinstance(error, InvalidInput) else {}
    message = error.message + (f" ({error.hint})" if error.hint else "")
    return error.http_status, payloads.failure(error.error_code, message, **more)


def _stackable(data: Any) -> Any:
    """What two inputs must have in common to be put one after another; None if this one cannot be."""
    if hasattr(data, "columns"):
        return ("frame", tuple(data.columns), tuple(map(str, data.dtypes))) if len(data) else None
    if type(data).__module__ == "numpy" and data.ndim and len(data):
        return ("array", data.dtype, data.shape[1:])
    return None


def _as_it_is(given: Any) -> Any:
    """What MLflow gives a model without a signature: tables as DataFrames, tensors as arrays."""
    if isinstance(given, Nested):
        import numpy as np

        return np.array(given.content)
    if isinstance(given, Columns):
        import numpy as np

        return {name: np.array(value) for name, value in given.columns.items()}
    if isinstance(given, (Rows, Records)):
        try:
            import pandas as pd
        except ImportError:
            raise ModelError(
                "a model without a signature needs pandas in its environment for rows with names", hint="send instances"
            ) from None
        try:
            if isinstance(given, Records):
                return pd.DataFrame(given.records)
            return pd.DataFrame(given.rows, columns=given.names, index=given.index)
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelError(f"the rows make no table: {error}") from None
    return given


def _example(model: Any) -> Any:
    """The model's input example as a body for `/invocations`; None where it has none that can be read."""
    told = model.metadata.get("saved_input_example_info")
    if not isinstance(told, dict):
        return None
    path = os.path.join(model.folder, os.path.basename(str(told.get("artifact_path", ""))))
    try:
        if os.path.getsize(path) > 1 << 20:
            return None
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return None
    if told.get("type") == "dataframe":
        return {"dataframe_split": {name: content[name] for name in ("columns", "data") if name in content}}
    if told.get("type") == "ndarray" and isinstance(content, dict) and "inputs" in content:
        return {"inputs": content["inputs"]}
    return {"inputs": content}


# -- a file


class File(NamedTuple):
    """A job of `predict`: where rows come from, where predictions go to, and in which forms."""

    source: Optional[str]  # a path; None is standard input, which a file may be as well
    kind: str  # csv, json, jsonl, parquet
    target: int  # a descriptor
    form: str  # json, csv, jsonl
    size: int = 20_000
    opened: Any = None  # the source, open


def predict_file(predictor: Predictor, file: File, tick: Callable[[int], None]) -> int:
    """Predict for all rows of a file, part by part, and return how many there were; ``tick`` is told the bytes read so far."""
    if file.source is None and sys.stdin is None:
        raise ModelError("there is no input: standard input is closed", hint="-i names a file of rows")
    source: Any = sys.stdin.buffer if file.source is None else open(file.source, "rb")  # noqa: SIM115 - closed below
    try:
        return _predict_file(predictor, file._replace(opened=source), tick)
    except UnicodeDecodeError as error:
        raise ModelError(f"the input is not UTF-8: {error}") from None
    finally:
        if file.source is not None:
            source.close()


def _position(file: File) -> int:
    try:
        return os.lseek(file.opened.fileno(), 0, os.SEEK_CUR)
    except OSError:  # a pipe
        return 0


def _predict_file(predictor: Predictor, file: File, tick: Callable[[int], None]) -> int:
    done = 0
    with open(file.target, "w", encoding="utf-8", closefd=False, newline="") as stream:
        writer = _WRITERS[file.form](stream)
        for asked in _parts(predictor, file):
            try:
                data = predictor.data(asked.given, done)
                if file.kind == "csv" and not _length(asked.given):  # a header alone: there is nothing to ask the model
                    continue
                found = predictor.predict(data, asked.params)
            except MlcliError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the model is somebody else's code
                where = f"rows {done + 1} to {done + _length(asked.given)}: " if _length(asked.given) else ""
                raise ModelError(where + predictor.told(error)) from None
            writer.add(found, bare=asked.bare)
            done += _length(asked.given)
            tick(_position(file))
        writer.end()
    return done


def _length(given: Any) -> int:
    if isinstance(given, Rows):
        return len(given.rows)
    if isinstance(given, Records):
        return len(given.records)
    if isinstance(given, Columns):
        return max([len(values) if isinstance(values, list) else 1 for values in given.columns.values()] or [0])
    if isinstance(given, Nested):
        return len(given.content) if isinstance(given.content, list) else 1
    return len(given) if hasattr(given, "columns") else 1


def _parts(predictor: Predictor, file: File) -> Iterator[payloads.Asked]:
    if file.kind == "parquet":
        yield from _parquet_parts(file)
        return
    if file.kind == "json":
        yield predictor.read(JSON, file.opened.read())
    elif file.kind == "jsonl":
        yield from _lines(file.opened, file.size)
    else:
        yield from _csv_parts(predictor, file.opened, file.size)


def _csv_parts(predictor: Predictor, stream: Any, size: int) -> Iterator[payloads.Asked]:
    import io

    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        if predictor.schema is not None:
            for rows in payloads.csv_parts(text, size):
                yield payloads.Asked(rows if predictor.by_array else payloads.without_gaps(rows))
            return
        try:
            import pandas as pd
        except ImportError:
            raise ModelError("a CSV table for a model without a signature needs pandas in its environment") from None
        try:
            for frame in pd.read_csv(text, chunksize=size):
                yield payloads.Asked(frame)
        except (ValueError, pd.errors.ParserError) as error:
            raise ModelError(f"the input is not a CSV table: {error}") from None
    finally:
        text.detach()


def _lines(stream: Any, size: int) -> Iterator[payloads.Asked]:
    records: List[Any] = []
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"line {number} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise ModelError(f"line {number} is no object with a value for each column")
        records.append(record)
        if len(records) == size:
            yield payloads.Asked(Records(records))
            records = []
    if records:
        yield payloads.Asked(Records(records))


def _parquet_parts(file: File) -> Iterator[payloads.Asked]:
    try:
        from pyarrow import ArrowException, ArrowInvalid, parquet
    except ImportError:
        raise ModelError("the model's environment cannot read Parquet", hint="it needs pyarrow; or give CSV") from None
    source: Any = file.opened
    if not source.seekable():  # Parquet begins at its end
        import io

        source = io.BytesIO(source.read())
    try:
        for batch in parquet.ParquetFile(source).iter_batches(batch_size=file.size):
            yield payloads.Asked(batch.to_pandas())
    except (ArrowInvalid, ArrowException) as error:
        raise ModelError(f"the input is not a Parquet table: {error}") from None


class _JsonWriter:
    """MLflow's answer, part after part."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._begun = ""

    def add(self, found: Any, *, bare: bool) -> None:
        plain = payloads.plain_values(found)
        if bare or not isinstance(plain, list):
            self._begun = "whole"
            self._stream.write(payloads.dump(plain if bare else {"predictions": plain}).decode())
            return
        items = payloads.dump(plain).decode()[1:-1]
        if not self._begun:
            self._stream.write('{"predictions": [')
        elif items and self._begun == "more":
            self._stream.write(", ")
        self._begun = "more" if items or self._begun == "more" else "empty"
        self._stream.write(items)

    def end(self) -> None:
        if self._begun != "whole":
            self._stream.write("]}" if self._begun else '{"predictions": []}')


class _LineWriter:
    """One JSON value a line."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def add(self, found: Any, *, bare: bool) -> None:
        plain = payloads.plain_values(found)
        for value in plain if isinstance(plain, list) and not bare else [plain]:
            self._stream.write(payloads.dump(value).decode() + "\n")

    def end(self) -> None:
        pass


class _CsvWriter:
    """A table: the columns that the model gives, or `prediction`."""

    def __init__(self, stream: Any) -> None:
        import csv

        self._writer = csv.writer(stream, lineterminator="\n")
        self._header: Optional[List[str]] = None

    def add(self, found: Any, *, bare: bool) -> None:
        del bare
        plain = payloads.plain_values(found)
        rows = plain if isinstance(plain, list) else [plain]
        if not rows:
            return
        first = rows[0]
        if isinstance(first, dict):
            names = list(first)
            cells = [[row[name] for name in names] for row in rows]
        elif isinstance(first, list):
            names = [f"prediction_{number}" for number in range(len(first))]
            cells = rows
        else:
            names, cells = ["prediction"], [[value] for value in rows]
        if self._header is None:
            self._header = [str(name) for name in names]
            self._writer.writerow(self._header)
        self._writer.writerows([[_cell(value) for value in row] for row in cells])

    def end(self) -> None:
        pass


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
        return ""
    if isinstance(value, (str, int, float)):
        return value
    text = payloads.dump(value).decode()
    return json.loads(text) if text.startswith('"') else text


_WRITERS: Dict[str, Any] = {"json": _JsonWriter, "jsonl": _LineWriter, "csv": _CsvWriter}


# -- the process


def main(arguments: Sequence[str]) -> int:
    sock = socket.socket(fileno=int(arguments[0]))
    link = Link(sock)
    first = link.next()
    if first is None or first.kind != JOB:
        return 0
    job = json.loads(first.body)
    die_with_parent(job["parent"])
    started = time.monotonic()
    try:
        _limit_memory(job.get("memory"))
        predictor = _loaded(job)
        told = {**predictor.describe(), "seconds": round(time.monotonic() - started, 3)}
    except MlcliError as error:
        link.answer(0, 500, payloads.failure(error.error_code, error.message, hint=error.hint))
        return 0
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a model and its libraries raise while they load
        import traceback

        traceback.print_exc()
        text = f"the model cannot be loaded: {type(error).__name__}: {error}"
        link.answer(0, 500, payloads.failure("BAD_REQUEST", text[:2000], hint="what it raised stands above"))
        return 0
    link.answer(0, 200, json.dumps(told, default=str).encode())
    if job.get("file"):
        return _file_job(link, predictor, File(**job["file"]))
    try:
        return _serve(link, predictor, job.get("batch_size", 1), job.get("batch_seconds", 0.0))
    except ConnectionError:  # who asked is gone
        return 0


def _loaded(job: Mapping[str, Any]) -> Predictor:
    from mlcli.models.pyfunc import load_model

    _import_later("pandas")
    if job.get("digest"):
        from mlcli.models import loading

        loading.check(job["model"], job["digest"], only=job.get("only_digest", False))
    model = load_model(job["model"], trust=job.get("trust", False))
    predictor = Predictor(model, job.get("name", ""), job.get("version", ""))
    if not predictor.by_array and predictor.schema is not None and not predictor.schema.tensors:
        import pandas as pd  # now, and not while the first caller waits

        _ = pd.DataFrame
    return predictor


class _Later(types.ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        from importlib import import_module

        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = import_module(self.__name__)
        self.__dict__.update(vars(real))
        return getattr(real, name)


def _import_later(name: str) -> None:
    """Let ``import name`` take no time until it is used: scikit-learn imports pandas, and needs it for DataFrames only.

    That is a third of the time and a fifth of the memory of a worker that gets arrays.
    """
    from importlib.util import find_spec

    spec = None if name in sys.modules else find_spec(name)
    if spec is not None:
        module = _Later(name)
        module.__spec__, module.__file__ = spec, spec.origin
        sys.modules[name] = module


def _serve(link: Link, predictor: Predictor, size: int, seconds: float) -> int:
    clock = time.perf_counter
    while True:
        message = link.next()
        if message is None:
            return 0
        start = clock()
        messages = [message] if size < 2 else link.together(message, size, seconds)
        try:
            answers = [predictor.answer(message)] if len(messages) == 1 else predictor.answer_together(messages)
        except MemoryError:
            body = payloads.failure(
                "RESOURCE_EXHAUSTED", "the model ran out of memory for this request; send fewer rows at a time"
            )
            for one in messages:
                link.answer(one.number, 507, body, clock() - start)
            return OUT_OF_MEMORY
        took = clock() - start
        for one, (status, body) in zip(messages, answers):
            link.answer(one.number, status, body, took)


def _file_job(link: Link, predictor: Predictor, file: File) -> int:
    def tick(position: int) -> None:
        link.answer(1, 100, str(position).encode())

    try:
        rows = predict_file(predictor, file, tick)
    except MlcliError as error:
        link.answer(1, error.http_status, payloads.failure(error.error_code, error.message, hint=error.hint))
    except MemoryError:
        link.answer(1, 507, payloads.failure("RESOURCE_EXHAUSTED", "the model ran out of memory", hint=""))
    except OSError as error:
        link.answer(
            1, 500, payloads.failure("INTERNAL_ERROR", f"{error.strerror}: {error.filename or 'the output'}", hint="")
        )
    else:
        link.answer(1, 200, str(rows).encode())
    return 0


def _limit_memory(size: Optional[int]) -> None:
    if not size:
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def die_with_parent(parent: int) -> None:
    """End when the gateway is killed, even in the middle of a prediction that never ends."""
    if sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
