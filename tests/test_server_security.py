"""What must never work: the corpus of old attacks, every route by strangers, slow and greedy clients."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import API, FILES, Client, serving

from mlcli.errors import InvalidInput, StoreUnavailable
from mlcli.server import run as running
from mlcli.server.routes import Route, Router, table, twins
from mlcli.server.security import OPEN, Auth, Doors, Users, token_from
from mlcli.store import open_store

CORPUS = Path(__file__).parent / "security" / "corpus.jsonl"
TOKEN = "a-token-that-is-long-enough"


# -- the corpus


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Path, str]]:
    """A server over a store with one run and one model, and a file outside that nobody may see or change."""
    folder = tmp_path_factory.mktemp("corpus")
    root = folder / "mlruns"
    outside = folder / "mlruns-evil"
    outside.mkdir()
    (outside / "x").write_text("secret")
    with serving(root) as (client, _):
        run_id = client.new_run()
        client.send("PUT", f"{FILES}/0/{run_id}/artifacts/ok", b"ok")
        client.post("registered-models/create", name="m")
        yield client, root, run_id


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file but those of the database, with size and time of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("mlcli.")
    }


def rows(root: Path) -> dict[str, int]:
    tables = ("experiments", "runs", "registered_models", "model_versions", "journals", "tags")
    with open_store(str(root)) as store:
        return {name: store.database.query(f"SELECT COUNT(*) FROM {name}")[0][0] for name in tables}


def filled(value: Any, known: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, found in known.items():
        text = text.replace("{" + name + "}", found)
    return json.loads(text)


def attack(client: Client, case: dict[str, Any]) -> tuple[int, bytes]:
    """Send the case as it is: no client library tidies up paths or headers."""
    headers = dict(case.get("headers", {}))
    if "body" in case:
        body = json.dumps(case["body"]).encode()
        headers.setdefault("Content-Type", "application/json")
    elif "repeat" in case:
        text, times = case["repeat"]
        body = (text * times).encode()
    else:
        body = case.get("raw", "").encode()
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    connection._validate_path = lambda _path: None  # type: ignore[attr-defined]
    try:
        connection.putrequest(case["method"], case["path"], skip_host="Host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        try:
            connection.send(body)
        except (BrokenPipeError, ConnectionResetError):  # it was told off before it had sent all
            pass
        found = connection.getresponse()
        return found.status, found.read()
    finally:
        connection.close()


CASES = [json.loads(line) for line in CORPUS.read_text().splitlines()]


@pytest.mark.parametrize("place", range(0, len(CASES), 50))
def test_nothing_of_the_corpus_works_or_leaves_a_trace(target, place):
    client, root, run_id = target
    known = {"run": run_id, "root": str(root), "port": str(client.port)}
    before = tree(root.parent), rows(root)
    wrong = []
    for case in filled(CASES[place : place + 50], known):
        status, body = attack(client, case)
        text = body.decode("utf-8", "replace")
        shown = json.dumps(case)[:300]
        if status not in case["expect"]:
            wrong.append(f"{status} {text[:200]} for {shown}")
        echoed = [str(root) in json.dumps(case), "Traceback" in text, "secret" in text]
        if "Traceback" in text or (str(root) in text and not echoed[0]) or "secret" in text:
            wrong.append(f"a leak: {text[:200]} for {shown}")
    assert wrong == []
    assert (tree(root.parent), rows(root)) == before


def test_whether_a_forbidden_file_exists_is_not_told(target):
    client, root, _ = target
    sources = [f"{root}-evil/x", f"{root}-evil/nothing"]
    answers = [client.post("model-versions/create", name="m", source=source, expect=400) for source in sources]
    told = [answer["message"].replace(source, "") for answer, source in zip(answers, sources, strict=True)]
    assert told[0] == told[1]


def test_a_link_that_leads_out_is_neither_listed_nor_read(target):
    client, root, run_id = target
    folder = root / "0" / run_id / "artifacts"
    (folder / "out").symlink_to(root.parent / "mlruns-evil")
    (folder / "file").symlink_to(root.parent / "mlruns-evil" / "x")
    try:
        base = f"{FILES}/0/{run_id}/artifacts"
        listed = client.get(f"artifacts/list?run_id={run_id}")["files"]
        assert [item["path"] for item in listed] == ["ok"]
        for path in ("out/x", "file"):
            assert client.send("GET", f"{base}/{path}").status == 400
            assert client.send("DELETE", f"{base}/{path}").status == 400
        assert client.send("PUT", f"{base}/out/y", b"1").status == 400
        assert not (root.parent / "mlruns-evil" / "y").exists()
    finally:
        (folder / "out").unlink()
        (folder / "file").unlink()


def test_an_artifact_is_never_shown_or_run_by_a_browser(target):
    client, _, run_id = target
    path = f"/0/{run_id}/artifacts/evil%22%0d%0a.html"
    assert client.send("PUT", FILES + path, b"<script>alert(1)</script>").status == 400  # a line break in a path
    path = f"/0/{run_id}/artifacts/e%22vil.html"
    client.send("PUT", FILES + path, b"<script>alert(1)</script>")
    headers = client.send("GET", FILES + path).headers
    client.send("DELETE", FILES + path)
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == "attachment; filename=\"e_vil.html\"; filename*=UTF-8''e%22vil.html"
    assert headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert headers["x-content-type-options"] == "nosniff"


def test_no_answer_lets_another_origin_read_it(target):
    client, _, _ = target
    headers = client.send("OPTIONS", API + "runs/create", Origin=f"http://127.0.0.1:{client.port}").headers
    assert not [name for name in headers if name.startswith("access-control")]


# -- every route


def every_route() -> list[tuple[str, str, Route]]:
    return [(route.method, path.replace("{path:path}", "x").replace("{tag_key:path}", "x"), route)
            for route in table() for path in twins(route.path)]  # fmt: skip


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Users]]:
    root = tmp_path_factory.mktemp("guarded") / "mlruns"
    users = Users(str(root.parent / "users.json"))
    with serving(root, auth=Auth(TOKEN, users), users=users) as (client, _):
        yield client, users


@pytest.mark.parametrize(
    ("method", "path", "route"), every_route(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_route_is_closed_to_strangers(guarded, method, path, route):
    client, _ = guarded
    body = b"{}" if method != "GET" else None
    known = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "application/json"}
    assert client.send(method, path, body, Host="evil.com", **known).status == 403
    assert client.send(method, path, body, Origin="http://evil.com", **known).status == 403
    assert client.send(method, path, body, Sec_Fetch_Site="cross-site", **known).status == 403
    stranger = client.send(method, path, body, Content_Type="application/json")
    wrong = client.send(method, path, body, Content_Type="application/json", Authorization="Bearer " + TOKEN[:-1] + "x")
    if route.permission == OPEN:
        assert route.path in ("/health", "/version", "/login", "/logout", "/static/{name}")
        assert stranger.status == (
            404 if "static" in route.path else 303 if route.page and method == "GET" else stranger.status
        )
        assert stranger.status in ((200,) if not route.page else (303, 403, 404))
    else:
        assert stranger.status == wrong.status == 401
        assert stranger.json["error_code"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(
    ("method", "path", "route"), every_route(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_who_may_only_read_changes_nothing(guarded, method, path, route):
    client, users = guarded
    token = _tokens(users)["reader"]
    body = b"{}" if method != "GET" else None
    status = client.send(method, path, body, Content_Type="application/json", Authorization=f"Bearer {token}").status
    assert (status == 403) == (
        route.permission in ("write", "admin") or (path in ("/login", "/logout") and method == "POST")
    )
    assert status != 401


_KNOWN: dict[str, dict[str, str]] = {}


def _tokens(users: Users) -> dict[str, str]:
    if users.path not in _KNOWN:
        _KNOWN[users.path] = {"reader": users.add("reader", "read"), "ann": users.add("ann", "write")}
    return _KNOWN[users.path]


def test_a_route_without_a_permission_cannot_be():
    with pytest.raises(ValueError, match="no permission"):
        Router((Route("GET", "/x", "", lambda _call: {}),))


def test_what_changes_something_asks_for_the_right_to_write():
    reading = {"experiments/search", "runs/search", "get-latest-versions", "logged-models/search"}
    loose = [
        route.path
        for route in table()
        if route.method != "GET" and route.permission == "read" and not any(route.path.endswith(end) for end in reading)
    ]
    assert loose == []


# -- tokens and users


def test_a_token_is_taken_as_bearer_and_as_password(guarded):
    client, _ = guarded
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for given in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"Basic {basic}"):
        assert client.send("GET", API + "experiments/get?experiment_id=0", Authorization=given).status == 200


@pytest.mark.parametrize(
    "given", ["", "Basic", "Basic !!!", "Basic Og==", "Bearer", "Digest x", f"Token {TOKEN}", TOKEN]
)
def test_anything_else_is_no_token(guarded, given):
    client, _ = guarded
    assert client.send("GET", API + "experiments/get?experiment_id=0", Authorization=given).status == 401


def test_a_users_name_is_recorded_with_what_the_user_creates(guarded):
    client, users = guarded
    ann = Client(client.port, Authorization=f"Bearer {_tokens(users)['ann']}")
    tags = [{"key": "mlflow.user", "value": "bob"}]
    run = ann.post("runs/create", experiment_id="0", user_id="bob", tags=tags)["run"]
    found = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert (run["info"]["user_id"], found["mlflow.user"]) == ("ann", "ann")
    start = {"run": "j1", "start": {"experiment_id": "0", "name": "n", "user": "bob", "time": 1, "status": "RUNNING"}}
    ann.send("POST", "/api/2.0/mlcli/journals/w", {"position": 0, "lines": json.dumps(start) + "\n"})
    assert ann.get("runs/get?run_id=j1")["run"]["info"]["user_id"] == "ann"


def test_users_do_not_share_journals_or_keys(guarded):
    client, users = guarded
    ann = Client(client.port, Authorization=f"Bearer {_tokens(users)['ann']}", Idempotency_Key="same")
    other = Client(client.port, Authorization=f"Bearer {TOKEN}", Idempotency_Key="same")
    assert ann.new_run() != other.new_run()
    line = {"position": 0, "lines": '{"v": 1}\n'}
    ann.send("POST", "/api/2.0/mlcli/journals/mine", line)
    assert other.send("POST", "/api/2.0/mlcli/journals/mine", {"position": 9, "lines": ""}).json == {"position": 0}


def test_a_user_who_is_removed_is_out_at_once(guarded):
    client, users = guarded
    gone = Client(client.port, Authorization=f"Bearer {users.add('gone', 'admin')}")
    assert gone.send("GET", "/api/2.0/mlcli/users").status == 200
    users.remove("gone")
    assert gone.send("GET", "/api/2.0/mlcli/users").status == 401


def test_the_first_user_closes_a_server_that_was_open_to_all(root):
    users = Users(str(root.parent / "users.json"))
    with serving(root, auth=Auth(None, users), users=users) as (client, _):
        client.new_run()
        token = users.add("ann", "write")
        client.post("runs/create", experiment_id="0", expect=401)
        Client(client.port, Authorization=f"Bearer {token}").new_run()


def test_tokens_are_kept_as_hashes_in_a_file_of_the_owners(tmp_path):
    os.umask(0)
    users = Users(str(tmp_path / "users.json"))
    token = users.add("ann", "write")
    kept, new = token_from(str(tmp_path / "token"))
    assert token not in (tmp_path / "users.json").read_text()
    assert new
    assert token_from(str(tmp_path / "token")) == (kept, False)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("users.json", "token")] == [0o600, 0o600]


@pytest.mark.parametrize("text", ["", "\n", "short"])
def test_a_weak_token_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(InvalidInput, match="too short"):
        token_from(str(tmp_path / "token"))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"users": {"a": {}}}', '{"users": {"a": {"role": "god", "token": "x"}}}']
)
def test_a_damaged_file_of_users_lets_nobody_in(tmp_path, text):
    (tmp_path / "users.json").write_text(text)
    with pytest.raises(InvalidInput, match="damaged"):
        Auth(None, Users(str(tmp_path / "users.json"))).identify(None)


# -- hosts


@pytest.mark.parametrize("host", ["localhost:5000", "LOCALHOST:5000", "127.0.0.1:5000", "[::1]:5000", "10.1.2.3:5000", "team.org", "team.org:5000", "proxy.org:8443"])  # fmt: skip
def test_a_host_that_is_ours_is_known(host):
    assert Doors(5000, ["team.org", "proxy.org:8443"]).host_allowed(host.encode())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:5001", "team.org:1", "proxy.org", "a.team.org", "team.org.evil.com", "[::1]", "127.0.0.1:", "127.0.0.1:05000x", "١٢٧.0.0.1:5000", "", ":5000"])  # fmt: skip
def test_a_host_that_is_not_ours_is_not(host):
    assert not Doors(5000, ["team.org", "proxy.org:8443"]).host_allowed(host.encode())


@pytest.mark.parametrize("name", ["*", "*.org", "http://team.org", " "])
def test_a_host_cannot_be_allowed_by_a_pattern(name):
    with pytest.raises(InvalidInput, match="can be allowed"):
        Doors(5000, [name])


# -- greedy and slow clients


def test_errors_of_the_store_tell_clients_no_paths(root, capfd):
    with serving(root) as (client, app):
        run_id = client.new_run()

        def broken(_call: Any) -> Any:
            raise StoreUnavailable(f"the store {root} is damaged")

        def buggy(_call: Any) -> Any:
            raise KeyError(str(root))

        for handler, status in ((broken, 503), (buggy, 500)):
            app.router._plain["GET", API + "runs/get"] = app.router._plain["GET", API + "runs/get"]._replace(
                handler=handler
            )
            answer = client.send("GET", API + f"runs/get?run_id={run_id}")
            assert answer.status == status
            assert str(root) not in answer.body.decode()
    assert str(root) in capfd.readouterr().err


def test_a_body_that_does_not_come_is_given_up(root, monkeypatch):
    monkeypatch.setattr("mlcli.server.http.PATIENCE", 0.3)
    with serving(root) as (client, _), socket.create_connection(("127.0.0.1", client.port), timeout=10) as sock:
        head = f"POST {API}runs/create HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("start", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nX: y\r\n"])
def test_a_head_that_does_not_end_is_given_up(root, monkeypatch, start):
    monkeypatch.setattr(running, "HEAD_PATIENCE", 0.3)
    with serving(root) as (client, _), socket.create_connection(("127.0.0.1", client.port), timeout=10) as sock:
        sock.sendall(start)
        assert hung_up(sock)


def test_a_second_request_that_does_not_end_is_given_up(root, monkeypatch):
    monkeypatch.setattr(running, "HEAD_PATIENCE", 0.3)
    with serving(root) as (client, _), socket.create_connection(("127.0.0.1", client.port), timeout=10) as sock:
        sock.sendall(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        sock.sendall(b"GET /hea")
        assert hung_up(sock)


def test_a_head_without_end_is_cut_off(root):
    with serving(root) as (client, _), socket.create_connection(("127.0.0.1", client.port), timeout=10) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\n")
        sent = 0
        try:
            while sent < 10_000_000:
                sent += sock.send(b"X-A: " + b"a" * 1000 + b"\r\n")
                time.sleep(0.001)
        except ConnectionError:
            pass
        assert 0 < sent < 1_000_000


def test_half_open_connections_hurt_nobody(root):
    with serving(root) as (client, _):
        held = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(300)]
        try:
            for number, sock in enumerate(held):
                sock.sendall([b"", b"GET /health HT", b"POST / HTTP/1.1\r\n"][number % 3])
            run_id = client.new_run()
            client.post("runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1)
            assert client.get(f"runs/get?run_id={run_id}")["run"]["data"]["metrics"][0]["value"] == 1
        finally:
            for sock in held:
                sock.close()


def hung_up(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n"]
)
def test_what_is_not_http_is_told_so_in_json(root, sent):
    with serving(root) as (client, _), socket.create_connection(("127.0.0.1", client.port), timeout=10) as sock:
        sock.sendall(sent)
        head, _, body = sock.recv(65536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["error_code"] == "BAD_REQUEST"
