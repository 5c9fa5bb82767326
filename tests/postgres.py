"""A PostgreSQL server for the tests: made in a temporary folder at first use, reached by password over the loopback."""

from __future__ import annotations

import glob
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

MISSING = (
    "PostgreSQL's programs are not here: `apt-get install postgresql`, `dnf install postgresql-server` or"
    " `brew install postgresql` brings them"
)
PASSWORD = "SECRET/with@every:sign?#%"  # canary: it must never be seen in what mlcli says


class Server:
    """A running server; each folder of a test gets a schema of its own in it."""

    def __init__(self, programs: str) -> None:
        self.programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="mlcli-postgres-"))
        self._lent: dict[Path, str] = {}
        self._clean: list[str] = []
        self._raw: Any = None
        # initdb and postgres refuse to be root: then somebody else runs them.
        self.user = next((name for name in ("postgres", "nobody") if _exists(name)), "") if os.getuid() == 0 else ""
        if self.user:
            shutil.chown(self.folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (self.folder / "password").write_text(PASSWORD)
        if self.user:
            shutil.chown(self.folder / "password", self.user)
        self._call(
            "initdb", "-D", "data", "-U", "mlcli", "-A", "scram-sha-256", "--pwfile=password", "--no-sync", "-EUTF8"
        )
        self.start()
        self.run("CREATE DATABASE plain TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'", database="postgres")
        # A database that sorts as people do, not by code point: what mlcli finds must not depend on it.
        version = int(self.run("SHOW server_version_num", database="postgres")[0][0])
        sorts = " LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'" if version >= 150000 else ""
        self.run(f"CREATE DATABASE mlcli TEMPLATE template0 ENCODING 'UTF8'{sorts}", database="postgres")

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "max_connections": "120",
            "shared_buffers": "64MB",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [f"{self.programs}/postgres", "-D", "data", "-p", str(self.port), *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as_user(),
            )
        end = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        try:
            self.run("SELECT 1", database="postgres")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: int = signal.SIGINT) -> None:
        self.process.send_signal(how)
        self.process.wait(60)

    def remove(self) -> None:
        if self._raw is not None:
            self._raw.close()
        self.stop()
        shutil.rmtree(self.folder)

    def uri(self, schema: str = "", *, database: str = "mlcli", password: str = PASSWORD) -> str:
        path = f"?options=-csearch_path%3D{schema}" if schema else ""
        return f"postgresql://mlcli:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}{path}"

    def uri_of(self, folder: Path, *, database: str = "mlcli") -> str:
        """The address of the store whose artifacts and journals lie in ``folder``."""
        schema = "s" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        self.run(f"CREATE SCHEMA IF NOT EXISTS {schema}", database=database)
        return self.uri(schema, database=database)

    def lent_uri_of(self, folder: Path) -> str:
        """The same, of a schema that other tests have used and left as if it were new: making one takes long."""
        schema = self._lent.get(folder)
        if schema is None:
            if self._clean:
                schema = self._clean.pop()
            else:
                schema = f"lent{os.urandom(6).hex()}"
                self.run(f"CREATE SCHEMA {schema}")
            self._lent[folder] = schema
        return self.uri(schema)

    def give_back(self) -> None:
        """Empty what was lent, for the next test."""
        for schema in self._lent.values():
            if self._emptied(schema):
                self._clean.append(schema)
        self._lent.clear()

    def _emptied(self, schema: str) -> bool:
        """Make a schema what it was after the first start; False where somebody holds on to it."""
        import psycopg

        raw = self._connection()
        with raw.transaction():
            # Keys are not looked at while everything goes, whatever the order.
            raw.execute(f"SET LOCAL search_path = {schema}; SET LOCAL session_replication_role = replica")
            raw.execute("SET LOCAL lock_timeout = '5s'")
            tables = [row[0] for row in raw.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema])]
            if "mlcli_meta" not in tables:
                return not tables
            try:
                with raw.transaction():
                    raw.execute("; ".join(f"DELETE FROM {table}" for table in tables if table != "mlcli_meta"))
            except psycopg.errors.LockNotAvailable:
                return False
            raw.execute("DELETE FROM mlcli_meta WHERE name <> 'schema_version'")
            raw.execute(
                "SELECT setval(oid::regclass, 1, false) FROM pg_class"
                " WHERE relkind = 'S' AND relnamespace = %s::regnamespace",
                [schema],
            )
            raw.execute(
                "INSERT INTO experiments (id, name, creation_time, last_update_time)"
                " SELECT 0, 'Default', now.ms, now.ms FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint AS ms) now"
            )
        return True

    def _connection(self) -> Any:
        """A connection that stays, for what each test asks: a new one costs more than the question."""
        import psycopg

        try:
            if self._raw is not None:
                self._raw.execute("SELECT 1")
        except psycopg.OperationalError:  # the server was stopped by a test
            self._raw = None
        if self._raw is None:
            self._raw = psycopg.connect(self.uri(), autocommit=True)
        return self._raw

    def run(self, sql: str, *, database: str = "mlcli") -> list:
        import psycopg

        with psycopg.connect(self.uri(database=database), autocommit=True) as raw:
            found = raw.execute(sql)
            return found.fetchall() if found.description else []

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [f"{self.programs}/{program}", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as_user(),
        )
        assert done.returncode == 0, done.stderr

    def _as_user(self) -> dict[str, object]:
        if not self.user:
            return {}
        found = pwd.getpwnam(self.user)
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _programs() -> str | None:
    places = [
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/usr/local/pgsql/bin",
        "/opt/homebrew/opt/postgresql*/bin",
    ]
    found = [folder for place in places for folder in sorted(glob.glob(place), reverse=True)]
    found += [os.path.dirname(os.path.realpath(path)) for path in [shutil.which("initdb")] if path]
    return next(
        (folder for folder in found if all(os.path.exists(f"{folder}/{p}") for p in ("initdb", "postgres"))), None
    )


@lru_cache(maxsize=1)
def running() -> Server:
    """The server of this test process; the test is skipped where PostgreSQL is not installed."""
    pytest.importorskip("psycopg", reason="the driver is not here: pip install 'mlcli[postgres]'")
    programs = _programs()
    if programs is None:
        pytest.skip(MISSING)
    return Server(programs)


def give_back() -> None:
    if running.cache_info().currsize:
        running().give_back()


def stop() -> None:
    if running.cache_info().currsize:
        running().remove()
        running.cache_clear()
