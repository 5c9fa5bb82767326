"""A TCP proxy that treats connections badly: cuts them after a request before its reply, or in the middle of a reply."""

from __future__ import annotations

import contextlib
import socket
import threading


class Chaos:
    """Passes connections on to ``target``.

    ``cut_replies`` is how many requests are still to be carried out by the server and never answered; ``cut_after`` is
    how many bytes of a reply's content get through before its connection is cut, for the next ``cuts`` replies.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.cut_replies = 0
        self.only = b""  # cut only replies to requests that hold these bytes
        self.cut_after = 0
        self.cuts = 0
        self.requests = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Chaos:
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._open):
            _close(end)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        """One connection, request by request: the client waits for a reply before it sends the next one."""
        self._open.add(client)
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=30)
        except OSError:
            _close(client)
            self._open.discard(client)
            return
        self._open.add(server)
        try:
            while self._exchange(client, server):
                pass
        except OSError:
            pass
        finally:
            for end in (client, server):
                _close(end)
                self._open.discard(end)

    def _exchange(self, client: socket.socket, server: socket.socket) -> bool:
        request = _message(client)
        if not request:
            return False
        server.sendall(_for(request, self.port, self.target))
        reply = _message(server)
        with self._lock:
            self.requests += 1
            wanted = self.only in request
            if self.cut_replies and wanted:
                self.cut_replies -= 1
                return False
            if self.cuts and wanted:
                self.cuts -= 1
                head = reply.index(b"\r\n\r\n") + 4
                client.sendall(reply[: head + self.cut_after])
                return False
        client.sendall(reply)
        return bool(reply)


def _message(end: socket.socket) -> bytes:
    """A whole request or reply, by its Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = end.recv(65536)
        if not part:
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        part = end.recv(65536)
        if not part:
            break
        body += part
    return head + b"\r\n\r\n" + body


def _for(request: bytes, port: int, target: int) -> bytes:
    return request.replace(b"Host: 127.0.0.1:%d" % port, b"Host: 127.0.0.1:%d" % target, 1)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
