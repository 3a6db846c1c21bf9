"""A server below HTTP: a behaviour gets the socket, and does with it what it likes."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from endpoint import said

Behaviour = Callable[[socket.socket, "Hostile"], None]


def head(status: str = "200 OK", **headers: str) -> bytes:
    fields = {"content-type": "application/json", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode()


def whole(payload: object, status: str = "200 OK", **headers: str) -> Behaviour:
    """A reply that ends: JSON, or bytes as they are."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()

    def reply(wire: socket.socket, _: "Hostile") -> None:
        length = {} if "transfer_encoding" in headers else {"content_length": str(len(body))}
        wire.sendall(head(status, **(length | headers)) + body)

    return reply


@dataclass
class Hostile:
    """What it was asked, and what it does: `behaviour` to the texts of `bad`, an answer else."""

    behaviour: Behaviour
    bad: frozenset[str] = frozenset({"b"})
    url: str = ""
    asked: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def serve(self, wire: socket.socket) -> None:
        with wire, suppress(OSError):
            wire.settimeout(20)
            raw = b""
            while b"\r\n\r\n" not in raw:
                if not (more := wire.recv(65536)):
                    return
                raw += more
            top, _, body = raw.partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in top.split(b"\r\n")[1:])
            while len(body) < int(fields.get(b"content-length", b"0")):
                body += wire.recv(65536)
            self.lines.append(top.split(b"\r\n")[0].decode())
            text = json.loads(body)["messages"][-1]["content"] if body else ""
            self.asked.append(text)
            good = whole(said(text.upper())[2], connection="close")
            (self.behaviour if text in self.bad or not body else good)(wire, self)


@contextmanager
def hostile(behaviour: Behaviour) -> Iterator[Hostile]:
    there = Hostile(behaviour)
    listener = socket.create_server(("127.0.0.1", 0))
    there.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    def accept() -> None:
        with suppress(OSError):
            while True:
                wire, _ = listener.accept()
                threading.Thread(target=there.serve, args=(wire,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield there
    finally:
        there.over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
