"""What a bridge serves where the store is on a server: every request goes there as it is, but for runs made and ended.

Those go through :class:`AdoptingStore`, so that the child's first run is mlcli's own, wherever it is kept.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from time import monotonic, sleep
from typing import IO, TYPE_CHECKING, Any, cast

from mlcli.errors import MlcliError, NotFound
from mlcli.server import http
from mlcli.server.http import Receive, Refused, Scope, Send
from mlcli.store.http import API
from mlcli.store.rest import RestStore

if TYPE_CHECKING:
    from mlcli.server.adopt import AdoptingStore, Adoption
    from mlcli.server.security import Auth, Doors

_IN_MEMORY = 1024 * 1024
_BLOCK = 256 * 1024
_SECONDS = 60.0
_ARRIVAL = 10.0  # seconds in which mlcli's run must have arrived at the server
# Of a request and of an answer, what means the same on both sides.
_THERE = (b"content-type", b"accept", b"range", b"user-agent", b"x-mlflow-client-version")
_BACK = ("content-type", "content-length", "content-disposition", "content-range", "accept-ranges", "etag")


class Forward:
    """The application of a bridge to the server that ``store`` is on."""

    def __init__(self, store: RestStore, adopting: AdoptingStore, adoption: Adoption, auth: Auth, doors: Doors) -> None:
        self._store = store
        self._adopting = adopting
        self._adoption = adoption
        self._auth = auth
        self._doors = doors
        self._own = {"runs/create": self._create, "runs/update": self._update}

    def close(self) -> None:
        self._store.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        try:
            if not self._doors.host_allowed(headers.get(b"host", b"")):
                raise Refused(403, "PERMISSION_DENIED", "this server is not known by that Host")
            if not self._auth.identify(headers.get(b"authorization")):
                raise Refused(401, "UNAUTHENTICATED", "this server is for one run, which knows its token")
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as body:
                more = True
                while more:
                    part, more = await http.next_part(receive)
                    body.write(part)
                own = self._own.get(scope["path"].partition("/mlflow/")[2]) if scope["method"] == "POST" else None
                if own:
                    body.seek(0)
                    found = await asyncio.to_thread(own, http.parse_json(body.read()))
                    await http.answer_json(send, http.dump(found))
                else:
                    await self._pass_on(scope, headers, cast("IO[bytes]", body), send)
        except http.Gone:
            pass
        except Refused as error:
            await http.answer_error(send, error)
        except MlcliError as error:
            await http.answer_error(send, http.refusal(error))

    async def _pass_on(self, scope: Scope, headers: dict[bytes, bytes], body: IO[bytes], send: Send) -> None:
        size = body.tell()
        path = (scope.get("raw_path") or scope["path"].encode()).decode("ascii")
        target = path + (f"?{scope['query_string'].decode('ascii')}" if scope["query_string"] else "")
        told = {name.decode(): headers[name].decode("latin-1") for name in _THERE if name in headers}
        creates = path.endswith(("create", "/logged-models", "log-model"))  # not to be sent twice
        response, connection = await asyncio.to_thread(
            self._store.server.exchange,
            scope["method"],
            target,
            _again(body) if size else None,
            told,
            size or None,
            creates,
        )
        try:
            found = [
                (name.lower().encode(), value.encode("latin-1"))
                for name, value in response.getheaders()
                if name.lower() in _BACK
            ]
            await send({"type": "http.response.start", "status": response.status, "headers": found})
            while block := await asyncio.to_thread(response.read, _BLOCK):
                await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            connection.close()

    # -- runs made and ended

    def _create(self, given: dict[str, Any]) -> Any:
        self._arrived()
        tags = [(item["key"], item["value"]) for item in given.get("tags", ())]
        run = self._adopting.create_run(
            str(given["experiment_id"]), given.get("start_time"), tags, given.get("run_name"), given.get("user_id", "")
        )
        return self._raw(run.info.run_id)

    def _update(self, given: dict[str, Any]) -> Any:
        run_id = given.get("run_id") or given.get("run_uuid") or ""
        status, end = given.get("status"), given.get("end_time")
        run = self._adopting.update_run(run_id, None if status is None else str(status), end, given.get("run_name"))
        info = self._raw(run_id)["run"]["info"]
        return {"run_info": {**info, "status": run.info.status, "end_time": run.info.end_time or 0}}

    def _raw(self, run_id: str) -> Any:
        """The run as the server tells it, artifact URI and all."""
        return self._store.server.json("GET", API + "runs/get", query=[("run_id", run_id)])

    def _arrived(self) -> None:
        """Wait until mlcli's run is on the server: it is sent in the background."""
        until = monotonic() + _ARRIVAL
        while not (self._adoption.taken or self._is_there(self._adoption.run_id)) and monotonic() < until:
            sleep(0.05)

    def _is_there(self, run_id: str) -> bool:
        try:
            self._store.get_run(run_id)
        except NotFound:
            return False
        return True


def _again(body: IO[bytes]) -> Callable[[], IO[bytes]]:
    """Opens the body for one more attempt; closing it leaves it to us."""

    def opened() -> IO[bytes]:
        body.seek(0)
        return cast("IO[bytes]", _Kept(body))

    return opened


class _Kept:
    def __init__(self, body: IO[bytes]) -> None:
        self._body = body

    def read(self, size: int = -1) -> bytes:
        return self._body.read(size)

    def close(self) -> None:
        pass
