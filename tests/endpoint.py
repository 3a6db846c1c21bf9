"""A server of the standard library, on this machine, that does what a test tells it to."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SOON = {"retry-after-ms": "1"}
Reply = tuple[int, dict[str, str], Any]
Script = Callable[[str, int], Reply]


def said(text: str | None, finish: str = "stop", **more: Any) -> Reply:
    message = {"role": "assistant", "content": text, **more}
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return 200, {}, {"id": "1", "model": "m-1", "choices": [choice], "usage": usage}


def failed(status: int, message: str = "no") -> Reply:
    return status, SOON, {"error": {"message": message, "type": "t"}}


def echo(text: str, attempt: int) -> Reply:
    return said(text.upper())


@dataclass
class Endpoint:
    """A server: what it was asked, and what it answers.

    Attributes:
        script: From what the user said, and how often it was said before, to the reply.
    """

    script: Script = echo
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def asked(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]

    def wait_until_busiest(self, n: int) -> None:
        deadline = time.monotonic() + 20
        while self.busiest < n and time.monotonic() < deadline:
            time.sleep(0.005)

    def reply(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        text = body["messages"][-1]["content"]
        with self.lock:
            before = self.asked.count(text)
            self.bodies.append(body)
            self.headers.append(headers)
            self.busy += 1
            self.busiest = max(self.busiest, self.busy)
        try:
            return self.script(text, before)
        finally:
            with self.lock:
                self.busy -= 1


class Server(ThreadingHTTPServer):
    """A client that leaves in the middle of a request, its head even, is no news.

    One that was stopped does. What else goes wrong here shows at the client, which gets no answer.
    """

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            size = int(self.headers["content-length"] or 0)
            sent = self.rfile.read(size)
            if not sent or len(sent) < size:  # the client left
                return
            body = json.loads(sent)
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, more, payload = endpoint.reply(body, headers)
            raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            try:
                self.send_response(status)
                for name, value in {"content-type": "application/json", **more}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)
            except OSError:  # the client left
                pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    endpoint.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
