"""Endpoints that mean harm, or are broken beyond belief: bounded time and room, nothing lost."""

import gzip
import json
import resource
import socket
import time
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from endpoint import said
from hostile import Behaviour, Hostile, head, hostile, whole

from xlens import Prompt
from xlens.served import ServedError, ServedGenerations, ServedModel, served_generate, wire

pytest.importorskip("openai", reason="the extra [api] is not installed: make install")

KEY = "sk-test-0123456789abcdefghijklmnop"
PROMPTS = [Prompt(text, "de", f"q{n}") for n, text in enumerate("abc")]
SECONDS = 0.5
REPLY: dict[str, Any] = said("B")[2]


def drip(wire: socket.socket, there: Hostile) -> None:
    """Never silent for long, never done."""
    wire.sendall(head(content_length="1000000"))
    while not there.over.wait(0.05):
        wire.sendall(b" ")


def drip_header(wire: socket.socket, there: Hostile) -> None:
    wire.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while not there.over.wait(0.05):
        wire.sendall(b"x")


def continue_for_ever(wire: socket.socket, there: Hostile) -> None:
    while not there.over.wait(0.01):
        wire.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def silence(wire: socket.socket, there: Hostile) -> None:
    there.over.wait(10)


def silence_after_head(wire: socket.socket, there: Hostile) -> None:
    wire.sendall(head(content_length="100"))
    there.over.wait(10)


def flood(wire: socket.socket, there: Hostile) -> None:
    wire.sendall(head(connection="close"))
    block = b" " * (1 << 20)
    for _ in range(1500):
        wire.sendall(block)


def flood_headers(wire: socket.socket, there: Hostile) -> None:
    wire.sendall(b"HTTP/1.1 200 OK\r\n")
    for n in range(1_000_000):
        wire.sendall(b"x-%d: %s\r\n" % (n, b"y" * 1000))


def flood_error(wire: socket.socket, there: Hostile) -> None:
    wire.sendall(head("400 Bad Request", connection="close"))
    block = b"x" * (1 << 20)
    for _ in range(1500):
        wire.sendall(block)


@cache
def blanks() -> bytes:
    """The gzip of 600 MB of blanks."""
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    block = b" " * (1 << 20)
    return b"".join(packer.compress(block) for _ in range(600)) + packer.flush()


def bomb(layers: int = 1, packing: str = "gzip") -> Behaviour:
    """600 MB of blanks, packed once or twice."""

    def reply(wire: socket.socket, there: Hostile) -> None:
        packed = blanks()
        for _ in range(layers - 1):
            packed = gzip.compress(packed)
        wire.sendall(head(content_encoding=packing, content_length=str(len(packed))) + packed)

    return reply


def reset(wire: socket.socket, there: Hostile) -> None:
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def short(wire: socket.socket, there: Hostile) -> None:
    wire.sendall(head(content_length="1000") + b'{"choices": [')


def raw(text: bytes) -> Behaviour:
    return lambda wire, there: wire.sendall(text)


def changed(**fields: Any) -> Behaviour:
    return whole({**REPLY, **fields})


def choice(**fields: Any) -> Behaviour:
    return changed(choices=[{**REPLY["choices"][0], **fields}])


def usage(n: Any) -> Behaviour:
    text = json.dumps({**REPLY, "usage": {"prompt_tokens": "N", "completion_tokens": 4}})
    return whole(text.replace('"N"', n).encode())


ERRORS: dict[str, Behaviour] = {
    "drips a body": drip,
    "drips a header": drip_header,
    "continues for ever": continue_for_ever,
    "says nothing": silence,
    "says nothing after the head": silence_after_head,
    "floods": flood,
    "floods headers": flood_headers,
    "floods an error": flood_error,
    "a gzip bomb": bomb(),
    "a gzip bomb within one": bomb(2, "gzip"),
    "a packing of its own": bomb(2, "gzip, gzip"),
    "brotli unasked": whole(b"\x8b\x02\x80B\x03", content_encoding="br"),
    "no gzip in gzip": whole(REPLY, content_encoding="gzip"),
    "gzip cut off": whole(gzip.compress(json.dumps(REPLY).encode())[:-20], content_encoding="gzip"),
    "resets": reset,
    "closes": raw(b""),
    "cut short": short,
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "HTTP of another time": raw(b"HTTP/9.9 200 OK\r\n\r\n{}"),
    "a status of 999": whole(REPLY, "999 What"),
    "a length below 0": whole(REPLY, content_length="-5"),
    "a length beyond": whole(REPLY, content_length=str(10**30)),
    "bad chunks": whole(b"zz\r\nabc", transfer_encoding="chunked"),
    "no content": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "an empty body": whole(b""),
    "null": whole(b"null"),
    "a number": whole(b"1e999"),
    "NaN": whole(b"NaN"),
    "text": whole(b'"Rom"'),
    "deep lists": whole(b"[" * 1_000_000),
    "deep lists, closed": whole(b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "deep objects": whole(b'{"choices":' * 200_000),
    "a long number": whole(b'{"choices": ' + b"9" * 100_000 + b"}"),
    "no UTF-8": whole(b'{"choices": "\xff\xfe"}'),
    "many lists": whole(b'{"choices":[' + b"[]," * 2_000_000 + b"[]]}"),
    "choices as text": changed(choices="abc"),
    "choices as an object": changed(choices={"0": REPLY["choices"][0]}),
    "no choice in choices": changed(choices=[None]),
    "a number as choice": changed(choices=[5]),
    "no message": choice(message=None),
    "an empty message": choice(message={}),
    "usage as a list": changed(usage=[10, 4]),
    "a message of text": choice(message="Rom"),
    "content as a number": choice(message={"role": "assistant", "content": 5}),
    "content as a list": choice(message={"role": "assistant", "content": [{"text": "Rom"}]}),
    "content as an object": choice(message={"role": "assistant", "content": {"a": 1}}),
    "a reason as a number": choice(finish_reason=7),
    "a reason without end": choice(finish_reason="x" * 1_000_000),
    "a model as a list": changed(model=["m"]),
    "a model's name without end": changed(model="m" * 1_000_000),
    "10^30 tokens": usage("1" + "0" * 30),
    "10^12 tokens": usage("1" + "0" * 12),
    "-1 tokens": usage("-1"),
    "half a token": usage("0.5"),
    "infinite tokens": usage("1e999"),
    "no number of tokens": usage("NaN"),
    "tokens as text": usage('"ten"'),
    "tokens as a truth": usage("true"),
    "tokens as a list": usage("[10]"),
    "an error with 200": whole({"error": {"message": "no luck"}}),
    "an error as deep JSON": whole(b"[" * 1_000_000, "400 Bad Request"),
    "an error of noise": whole(bytes(range(256)) * 400, "500 Oops"),
    "an error with half a pair": whole(b'{"error": {"message": "\\ud83d"}}', "400 Bad Request"),
    "waits a week": whole({}, "429 Later", retry_after="604800"),
    "waits without end": whole({}, "503 Later", retry_after="inf"),
    "waits until nonsense": whole({}, "503 Later", retry_after="Fri, 99 Foo 10000"),
    "sends to itself": whole({}, "307 There", location="/v1/chat/completions"),
    "sends on without a place": whole({}, "307 There"),
    "sends to a file": whole({}, "302 There", location="file:///etc/passwd"),
    "sends to no address": whole({}, "308 There", location="http://[::1"),
    "has moved": whole({}, "301 There", location="/v1/elsewhere"),
}
FINE: dict[str, Behaviour] = {
    "no usage": changed(usage=None),
    "tokens as a whole fraction": usage("10.0"),
    "a thought alone": choice(message={"role": "assistant", "reasoning": "B", "refusal": "B"}),
    "no reason": choice(finish_reason=None),
    "more than asked": changed(choices=[REPLY["choices"][0]] * 3, more={"a": [1]}),
    "JSON called text": whole(REPLY, content_type="text/plain"),
    "gzip": whole(gzip.compress(json.dumps(REPLY).encode()), content_encoding="gzip"),
    "a cookie of its own": whole(REPLY, set_cookie="a=b"),
}


QUICK = (
    "drips a body",
    "continues for ever",
    "floods",
    "a gzip bomb",
    "resets",
    "deep lists",
    "many lists",
    "an empty message",
    "10^30 tokens",
    "sends to itself",
)


def ask(there: Hostile, store: Path, **how: Any) -> ServedGenerations:
    options = {"timeout": SECONDS, "max_retries": 0, "concurrency": 1, **how}
    model = ServedModel("m", there.url, **options)
    return served_generate(model, PROMPTS, store=store, progress=False)


@pytest.fixture(autouse=True)
def bounded() -> Any:
    """In time and, what the server of the test takes included, in room."""
    room, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    yield
    assert time.monotonic() - start < 10
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - room
    assert grown < 400_000, f"{grown:,} kB"


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ERRORS]
)
def test_a_hostile_answer_is_an_error_of_its_prompt_and_the_rest_is_kept(name, tmp_path):
    with hostile(ERRORS[name]) as there:
        with pytest.raises(ServedError) as told:
            ask(there, tmp_path)
        message = str(told.value)
        assert "Prompt 'q1' (de) got no answer from 'm' at http" in message
        assert "Of 3 requests 1 were answered: kept in" in message
        assert len(message) < 1500
        message.encode()  # can be written
        there.behaviour = whole(REPLY)
        there.asked.clear()
        assert ask(there, tmp_path).table["text"].tolist() == ["A", "B", "C"]
        assert there.asked == ["b", "c"]


@pytest.mark.parametrize("name", FINE)
def test_odd_answers_are_answers(name, tmp_path):
    with hostile(FINE[name]) as there:
        # They are in time, and come by connections that are closed after each: a client that takes
        # up one that is closing asks again.
        found = ask(there, tmp_path, timeout=5.0, max_retries=2)
        assert found.table["text"].tolist() == ["A", "B", "C"]


def test_there_are_enough_of_them():
    assert len(ERRORS) + len(FINE) >= 40


def test_a_try_is_bounded_as_a_whole_and_tried_again(tmp_path):
    with hostile(drip) as there:
        start = time.monotonic()
        with pytest.raises(ServedError, match=r"after 2 tries: no answer within 0\.5 s"):
            ask(there, tmp_path, max_retries=1)
        assert time.monotonic() - start < 2 * SECONDS + 3
        assert there.asked == ["a", "b", "b"]


@pytest.mark.parametrize("status", ["301 A", "302 A", "303 A", "307 A", "308 A"])
def test_no_prompt_and_no_key_goes_to_another_host(status, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    with hostile(whole(REPLY)) as elsewhere:
        there_too = f"{elsewhere.url}/chat/completions?key={KEY}"
        moved = whole({}, status, location=there_too)
        sends = pytest.raises(ServedError, match=r"it sends to http.*base_url")
        with hostile(moved) as there, sends as told:
            ask(there, tmp_path, api_key_env="SOME_KEY")
        assert elsewhere.asked == []
    assert elsewhere.url in str(told.value) and KEY not in str(told.value)


def test_a_redirect_within_the_server_is_followed_with_the_prompt(tmp_path):
    def slash(wire: socket.socket, there: Hostile) -> None:
        more = {"connection": "close"}
        if there.lines[-1].startswith("POST /v1/chat/completions/ "):
            return whole(REPLY, **more)(wire, there)
        whole({}, "307 A", location="/v1/chat/completions/", **more)(wire, there)

    with hostile(slash) as there:
        assert ask(there, tmp_path).table["text"].tolist() == ["A", "B", "C"]


def test_a_redirect_that_would_lose_the_prompt_is_not_followed(tmp_path):
    """After a 301 a client asks with GET: its answer is to no question of ours."""
    moved = whole({}, "301 Moved", location="/v1/elsewhere", connection="close")
    with hostile(moved) as there:
        with pytest.raises(ServedError, match="status 301"):
            ask(there, tmp_path)
        assert not [line for line in there.lines if line.startswith("GET")]


def test_oversized_bodies_are_named_and_asked_for_once(tmp_path):
    with hostile(bomb()) as there:
        with pytest.raises(ServedError, match="goes on after 16 MB"):
            ask(there, tmp_path, max_retries=3, timeout=5.0)
        assert there.asked == ["a", "b"]
    assert wire.MAX_BYTES == 16 << 20


def test_bodies_of_too_many_parts_are_named_and_asked_for_once(tmp_path):
    with hostile(ERRORS["many lists"]) as there:
        with pytest.raises(ServedError, match="2,000,003 lists and objects"):
            ask(there, tmp_path, max_retries=3, timeout=5.0)
        assert there.asked == ["a", "b"]


def test_an_answer_may_have_hundreds_of_thousands(tmp_path):
    """Such as what was also probable, at each token of a long one."""
    with hostile(changed(more=[{}] * 500_000)) as there:
        assert ask(there, tmp_path, timeout=5.0).table["text"].tolist() == ["A", "B", "C"]


# --- keys ---


def spellings(key: str) -> list[str]:
    return [key, f"Bearer {key}", f"a {key}", f"{key}{key}"]


@pytest.mark.parametrize("said_with", spellings(KEY))
def test_a_key_that_comes_back_is_masked_in_every_file(said_with, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SOME_KEY", KEY)
    told = {**REPLY, "model": f"m {said_with}"}
    told["choices"] = [
        {"index": 0, "message": {"content": f"B {said_with}"}, "finish_reason": f"r {KEY}"}
    ]
    with hostile(whole(told, connection="close")) as there:
        found = ask(there, tmp_path / "store", api_key_env="SOME_KEY")
        found.save(tmp_path / "saved")
    assert found.table["text"][1].startswith("B ") and "***" in found.table["text"][1]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 4
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in f"{found.table.to_csv()} {found.provenance} {capfd.readouterr()}"


def test_a_placeholder_is_no_secret(tmp_path, monkeypatch):
    """vLLM is given `EMPTY` as a key: a model may write that word."""
    monkeypatch.setenv("SOME_KEY", "EMPTY")
    with hostile(choice(message={"content": "The set is EMPTY."})) as there:
        found = ask(there, tmp_path, api_key_env="SOME_KEY")
    assert found.table["text"][1] == "The set is EMPTY."


@pytest.mark.parametrize("where", [{"system": KEY}, {"extra_body": {"user": {"a": [KEY]}}}])
def test_a_key_among_what_is_recorded_is_refused(where, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", KEY)
    with hostile(whole(REPLY, connection="close")) as there:
        with pytest.raises(ValueError, match=next(iter(where))) as told:
            ask(there, tmp_path, api_key_env="SOME_KEY", **where)
        assert there.asked == [] and KEY not in str(told.value)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY in p.read_text()]
