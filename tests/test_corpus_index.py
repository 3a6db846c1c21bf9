"""Indexes that are asked over HTTP, against a server here that speaks their protocols."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pandas as pd
import pytest

import xlens
from xlens.cli import main
from xlens.corpus import (
    FACT,
    Bounds,
    Elasticsearch,
    Found,
    Index,
    IndexFailure,
    InfiniGram,
    count_in_index,
    wire,
)
from xlens.tasks.facts import read_frequencies

QUICK = Bounds(tries=3, timeout=5.0, pause=0.0)
QUIET = {"progress": False}
FACTS = pd.DataFrame(
    [
        ("1", "capital", "en", "Paris", "France"),
        ("1", "capital", "fr", "Paris", "France"),
        ("1", "capital", "ja", "パリ", "フランス"),
        ("2", "capital", "en", "Lima", "Peru"),
    ],
    columns=list(FACT),
)
COUNTS = {("Paris", "France"): 7, ("パリ", "フランス"): 0, ("Lima", "Peru"): 60_000}
Reply = tuple[int, dict[str, str], Any]


def plain(pair: tuple[str, str], before: int) -> Reply:
    return 200, {}, COUNTS[pair]


class Server:
    """Both protocols; `script` says what becomes of a pair, and how often it was asked before."""

    def __init__(self, script: Callable[[tuple[str, str], int], Reply]):
        self.script, self.asked, self.bodies, self.headers = script, [], [], []
        self.paths: list[str] = []
        self.url = ""

    def answer(self, path: str, body: Any, headers: dict[str, str]) -> Reply:
        if path.endswith("/_count"):
            phrases = [f["match_phrase"]["text"] for f in body["query"]["bool"]["filter"]]
            assert all(phrase["slop"] == 0 for phrase in phrases)
            pair = tuple(phrase["query"] for phrase in phrases)
        else:
            assert body["query_type"] == "count"
            pair = tuple(body["query"].split(" AND "))
        before = self.asked.count(pair)
        self.asked.append(pair)
        self.bodies.append(body)
        self.headers.append(headers)
        self.paths.append(path)
        status, more, said = self.script(pair, before)
        if isinstance(said, int):
            shards = {"total": 5, "successful": 5, "failed": 0}
            said = {"count": said, "approx": said > 50_000, "_shards": shards}
        return status, more, said


@contextmanager
def serving(script: Callable[[tuple[str, str], int], Reply] = plain) -> Iterator[Server]:
    mine = Server(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, more, said = mine.answer(self.path, body, dict(self.headers))
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            for name, value in {"content-length": str(len(raw)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # who has read enough leaves
                self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    mine.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield mine
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def infini(server: Server, **options: Any) -> InfiniGram:
    return InfiniGram("v4_small", server.url, bounds=options.pop("bounds", QUICK), **options)


def elastic(server: Server, **options: Any) -> Elasticsearch:
    return Elasticsearch("docs_v1.7", server.url, bounds=options.pop("bounds", QUICK), **options)


@pytest.mark.parametrize("kind", [infini, elastic])
def test_every_pair_is_asked_once(kind, tmp_path):
    with serving() as server:
        index = kind(server)
        assert isinstance(index, Index)
        found = count_in_index(index, FACTS, **QUIET)
    assert found.facts["frequency"].tolist() == [7, 7, 0, 60_000]
    assert found.facts["approx"].tolist() == [False] * 3 + [kind is infini]
    assert sorted(server.asked) == sorted(COUNTS)
    again = xlens.results.load(found.save(tmp_path / "counts"))
    pd.testing.assert_frame_equal(again.facts, found.facts)
    assert again.provenance["index"] == index.about()
    said = read_frequencies(tmp_path / "counts")
    assert said == {("1", "en"): 7, ("1", "fr"): 7, ("1", "ja"): 0, ("2", "en"): 60_000}


def test_what_is_sent():
    with serving() as server:
        infini(server, max_diff_tokens=10).count("Paris", "France")
        assert server.bodies[-1] == {
            "index": "v4_small",
            "query_type": "count",
            "query": "Paris AND France",
            "max_diff_tokens": 10,
            "max_clause_freq": 50_000,
        }
        elastic(server).count("Paris", "France")
    assert server.paths == ["/", "/docs_v1.7/_count"]
    assert "Authorization" not in server.headers[-1]


def test_a_key_is_sent_and_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-s3cret")
    with serving() as server:
        index = elastic(server, api_key_env="MY_KEY")
        found = count_in_index(index, FACTS, kept=tmp_path / "kept.jsonl", **QUIET)
        monkeypatch.delenv("MY_KEY")
        with pytest.raises(ValueError, match="MY_KEY holds no key"):
            index.count("Paris", "France")
    assert server.headers[0]["Authorization"] == "ApiKey s3cret-s3cret"
    assert "s3cret" not in (tmp_path / "kept.jsonl").read_text() + str(found.provenance)
    assert "s3cret" not in repr(index)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again_but_not_for_ever(status):
    def busy(pair, before):
        return (status, {}, {"error": "busy"}) if before < 2 else plain(pair, before)

    with serving(busy) as server:
        assert infini(server).count("Paris", "France") == Found(7)
        assert len(server.asked) == 3
    with serving(lambda pair, before: (status, {}, {"error": "busy"})) as server:
        with pytest.raises(IndexFailure, match=rf"no count after 3 tries: status {status}.*busy"):
            infini(server).count("Paris", "France")
        assert len(server.asked) == 3


def test_a_pause_that_is_asked_for_is_kept(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr(wire.time, "sleep", waited.append)

    def busy(pair, before):
        pause = {"Retry-After": ["7", "9999", "soon"][before]}
        return 429, pause, {}

    with serving(busy) as server, pytest.raises(IndexFailure):
        infini(server, bounds=Bounds(tries=3, pause=0.5)).count("Paris", "France")
    assert waited == [7.0, 60.0]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((404, {}, {"error": "no such index"}), "status 404.*no such index.*index's name"),
        ((401, {}, {}), "status 401.*key"),
        ((302, {"Location": "/elsewhere"}, {}), "status 302"),
        ((307, {"Location": "http://127.0.0.1:9/"}, {}), "status 307"),
        ((200, {}, b"<html>"), "answers with no JSON object: <html>"),
        ((200, {}, [1]), "answers with no JSON object"),
        ((200, {}, {"error": "index unknown"}), "no count: index unknown"),
        ((200, {}, {"count": -1}), "without a count"),
        ((200, {}, {"count": True}), "without a count"),
        ((200, {}, {"count": 10**30}), "without a count"),
        ((200, {}, b'{"count": 1' + b"0" * 5000 + b"}"), "no JSON object"),
        ((200, {}, b'{"count":' * 9000), "no JSON object"),
        ((200, {}, {"count": 5, "approx": "yes"}), "approx='yes'"),
        ((200, {}, b"[" * 3_000_000), "more than 1 MB"),
    ],
)
def test_what_no_further_try_would_mend_ends_at_once(reply, said):
    with serving(lambda pair, before: reply) as server:
        with pytest.raises(IndexFailure, match=said):
            infini(server).count("Paris", "France")
        assert len(server.asked) == 1


def test_a_part_of_an_index_is_no_count():
    part = {"count": 5, "_shards": {"total": 5, "successful": 3, "failed": 2}}
    with (
        serving(lambda pair, before: (200, {}, part)) as server,
        pytest.raises(IndexFailure, match="2 shards failed"),
    ):
        elastic(server).count("Paris", "France")


def test_nobody_there_and_too_slow():
    with serving() as server:
        pass  # closed again
    with pytest.raises(IndexFailure, match="no count after 3 tries: no answer"):
        infini(server).count("Paris", "France")

    def slow(pair, before):
        time.sleep(0.5)
        return plain(pair, before)

    with (
        serving(slow) as server,
        pytest.raises(
            IndexFailure, match=r"no (count|answer).*(took longer than 0\.1 s|timed out)"
        ),
    ):
        infini(server, bounds=Bounds(tries=1, timeout=0.1)).count("Paris", "France")


def test_a_stopped_count_goes_on_and_rewrites_nothing(tmp_path):
    kept = tmp_path / "new" / "kept.jsonl"

    def failing(pair, before):
        return (400, {}, {}) if pair[0] == "Lima" else plain(pair, before)

    with serving(failing) as server:
        with pytest.raises(IndexFailure, match="status 400"):
            count_in_index(infini(server), FACTS, kept=kept, concurrency=1, **QUIET)
        first = kept.read_bytes()
        assert first.count(b"\n") == 2
        kept.write_bytes(first + b'{"subject": "Lima", "obj')  # cut off by a kill
        server.script, server.asked[:] = plain, []
        found = count_in_index(infini(server), FACTS, kept=kept, **QUIET)
        assert server.asked == [("Lima", "Peru")]
        assert found.facts["frequency"].tolist() == [7, 7, 0, 60_000]
        assert kept.read_bytes().startswith(first)
        # Asked in another way it is another count.
        other = infini(server, max_diff_tokens=5)
        server.asked.clear()
        count_in_index(other, FACTS, kept=kept, **QUIET)
        assert len(server.asked) == 3


def test_kept_answers_are_checked(tmp_path, caplog):
    kept = tmp_path / "kept.jsonl"
    with serving() as server:
        count_in_index(infini(server), FACTS, kept=kept, **QUIET)
        lines = kept.read_bytes().split(b"\n")
        at = next(n for n, line in enumerate(lines) if b"Lima" in line)
        lines[at] = lines[at].replace(b"60000", b"60001")
        kept.write_bytes(b"\n".join(lines))
        server.asked.clear()
        found = count_in_index(infini(server), FACTS, kept=kept, **QUIET)
    assert server.asked == [("Lima", "Peru")] and found.facts["frequency"].max() == 60_000
    assert f"not used: line {at + 1}" in caplog.text


@contextmanager
def raw(said: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that says anything, to whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, suppress(OSError):
                        client.recv(1 << 16)
                        said(client)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def dripping(begin: bytes, then: bytes) -> Callable[[socket.socket], object]:
    def said(client: socket.socket) -> None:
        client.sendall(begin)
        for _ in range(20):
            client.sendall(then)
            time.sleep(0.05)

    return said


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "said",
    [
        dripping(b"", b"H"),
        dripping(OK + b"X-Long: ", b"a"),
        dripping(OK + b"Content-Length: 500\r\n\r\n", b" "),
        dripping(b"HTTP/1.1 400 No\r\nContent-Length: 500\r\n\r\n", b" "),
        dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["status", "header", "body", "refusal", "chunks"],
)
def test_a_server_that_drips_is_left(said):
    with raw(said) as url:
        start = time.monotonic()
        with pytest.raises(IndexFailure, match=r"longer than 0\.2 s"):
            InfiniGram("v4", url, bounds=Bounds(tries=1, timeout=0.2)).count("a", "b")
        assert time.monotonic() - start < 0.8


@pytest.mark.parametrize(
    "reply",
    [
        (400, {}, {"error": "no such key: s3cret-s3cret"}),
        (500, {}, b" " * 1150 + b"s3cret-s3cret"),
        (200, {}, b"s3cret-s3cret" * 50),
        (200, {}, {"hits": "s3cret-s3cret"}),
        (200, {}, {"count": 5, "_shards": {"failed": "s3cret-s3cret"}}),
    ],
)
def test_a_key_that_comes_back_is_blotted_out(reply, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-s3cret")
    with serving(lambda pair, before: reply) as server:
        index = elastic(server, api_key_env="MY_KEY")
        with pytest.raises(IndexFailure) as told:
            index.count("Paris", "France")
        assert "s3cret" not in str(told.value) and "***" in str(told.value)
        beside = replace(index, text_field="s3cret-s3cret")
        with pytest.raises(ValueError, match="The key stands in 'field'"):
            beside.check("Paris", "France")


def test_bad_input(tmp_path):
    for wrong in ("api.infini-gram.io", "ftp://x", ""):
        with pytest.raises(ValueError, match="accepted is an address as http"):
            InfiniGram("v4", wrong)
    with pytest.raises(ValueError, match="belongs in an environment variable") as told:
        Elasticsearch("docs", "http://user:s3cret@host")
    assert "s3cret" not in str(told.value)
    with pytest.raises(ValueError, match="AND and OR are its operators"):
        InfiniGram("v4").count("Dungeons AND Dragons", "game")
    several = FACTS.assign(object=["OR", "x", "AND", "y"])
    with pytest.raises(ValueError, match=r"^2 of 4 pairs can't be asked for: 'Paris' with 'OR', "):
        count_in_index(InfiniGram("v4"), several, **QUIET)
    with pytest.raises(ValueError, match="accepted are 1 try or more"):
        Bounds(tries=0)
    (tmp_path / "kept.jsonl").write_text('{"a": 1}\n')
    with serving() as server:
        with pytest.raises(ValueError, match="line 1 is no answer of an index"):
            count_in_index(infini(server), FACTS, kept=tmp_path / "kept.jsonl", **QUIET)
        with pytest.raises(ValueError, match="concurrency is 0"):
            count_in_index(infini(server), FACTS, concurrency=0, **QUIET)


# --- the command ---------------------------------------------------------------------------------


def command(tmp_path, *more: str) -> int:
    table = tmp_path / "facts.tsv"
    FACTS.to_csv(table, sep="\t", index=False)
    with pytest.raises(SystemExit) as ended:
        main(["count", "--facts", str(table), "--out", str(tmp_path / "out"), *more])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("kind", ["infini-gram", "elasticsearch"])
def test_the_command_asks_an_index_and_goes_on(tmp_path, capsys, kind):
    def failing(pair, before):
        return (400, {}, {}) if pair[0] == "Lima" else plain(pair, before)

    with serving(failing) as server:
        more = ["--index", f"{kind}:small@{server.url}", "--workers", "1"]
        assert command(tmp_path, *more) == 2
        said = capsys.readouterr().err
        assert "status 400" in said and "2 of 3 pairs are answered, in " in said
        assert not (tmp_path / "out" / "counts").exists()
        server.script, server.asked[:] = plain, []
        assert command(tmp_path, *more) == 0
        assert server.asked == [("Lima", "Peru")]
    said = capsys.readouterr().out
    assert f"4 facts asked of {kind} 'small' at http" in said and "3 found, 1 never" in said
    assert ("1 estimate" in said) is (kind == "infini-gram")
    found = xlens.results.load(tmp_path / "out" / "counts")
    assert found.facts["frequency"].tolist() == [7, 7, 0, 60_000]


def test_a_busy_index_is_asked_so_often_and_no_more(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(wire.time, "sleep", lambda _: None)
    with serving(lambda pair, before: (503, {}, {})) as server:
        more = ["--index", f"infini-gram:small@{server.url}", "--tries", "2", "--workers", "1"]
        assert command(tmp_path, *more) == 2
        assert len(server.asked) == 2
    assert "gave no count after 2 tries: status 503" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "Give the files of a corpus, or --index"),
        (["x.txt", "--index", "infini-gram:v4"], "one of the two"),
        (["--index", "lucene:v4@http://x"], "'lucene:v4@http://x' names no index; accepted are"),
        (["--index", "elasticsearch:docs"], "names no index"),
        (["--index", "infini-gram:"], "names no index"),
        (["--index", "elasticsearch:docs@host:9200"], "accepted is an address as http"),
        (["--index", "infini-gram:v4", "--window", "3"], "--window: of files only"),
        (["--index", "infini-gram:v4", "--executor", "ray"], "--executor: of files only"),
        (["--index", "infini-gram:v4", "--api-key-env", "K"], "are options of Elasticsearch"),
        (["--index", "infini-gram:v4", "--workers", "0"], "concurrency is 0"),
        (["x.txt", "--max-diff-tokens", "3"], "--max-diff-tokens: of an index only"),
        (
            ["--index", "elasticsearch:d@http://h", "--max-diff-tokens", "3"],
            "max_diff_tokens is an option of infini-gram",
        ),
        (["--index", "elasticsearch:d@http://h", "--api-key-env", "NO_KEY"], "NO_KEY holds no key"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, more, said):
    assert command(tmp_path, *more) == 2
    assert said in " ".join(capsys.readouterr().err.split())
