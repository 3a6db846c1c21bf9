"""Served models when things go wrong: refusals, noise, kills, Ctrl-C; and where the key goes.

The server is the standard library's, on this machine, and does what each test tells it to.
"""

import asyncio
import json
import logging
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, Reply, echo, failed, said, serving

from xlens import Prompt
from xlens.served import ServedError, ServedGenerations, ServedModel, served_generate
from xlens.store import StoreError

pytest.importorskip("openai", reason="the extra [api] is not installed: make install")

KEY = "sk-test-0123456789abcdefghijklmnop"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as there:
        yield there


def served(endpoint: Endpoint, **how: Any) -> ServedModel:
    return ServedModel("m", endpoint.url, **{"concurrency": 3, "max_retries": 2, **how})


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(text, "de", f"q{n}") for n, text in enumerate(texts)]


LETTERS = prompts(*"abcdefgh")


def ask(model: ServedModel, asked: Any = LETTERS, **how: Any) -> ServedGenerations:
    return served_generate(model, asked, **{"progress": False, **how})


def texts(found: ServedGenerations) -> list[str]:
    return found.table["text"].tolist()


# --- answers ---


def test_order_is_kept_and_concurrency_bounded(endpoint):
    def slow_first(text: str, attempt: int) -> Reply:
        endpoint.wait_until_busiest(3)
        time.sleep(0.02 * (8 - "abcdefgh".index(text)))
        return said(text.upper())

    endpoint.script = slow_first
    found = ask(served(endpoint))
    assert texts(found) == list("ABCDEFGH")
    assert found.table["id"].tolist() == [p.id for p in LETTERS]
    assert endpoint.busiest == 3


def test_busy_and_broken_servers_are_asked_again(endpoint):
    def at_the_third_try(text: str, attempt: int) -> Reply:
        return said(text.upper()) if attempt == 2 else failed((429, 503)[attempt])

    endpoint.script = at_the_third_try
    found = ask(served(endpoint, price_in=1.0, price_out=100.0), LETTERS[:3])
    assert texts(found) == list("ABC") and len(endpoint.asked) == 9
    assert found.tokens == {"in": 30, "out": 12}  # of answers, not of tries
    assert found.cost == pytest.approx((30 + 12 * 100) / 1e6)


def test_the_same_text_is_asked_once_unless_it_is_sampled(endpoint):
    twins = prompts("a", "b", "a", "a")
    found = ask(served(endpoint, price_in=1e6, price_out=0.0), twins)
    assert texts(found) == ["A", "B", "A", "A"] and sorted(endpoint.asked) == ["a", "b"]
    assert found.tokens == {"in": 20, "out": 8} and found.cost == pytest.approx(20)

    endpoint.bodies.clear()
    endpoint.script = lambda text, attempt: said(f"{text}{attempt}")
    drawn = ask(served(endpoint), twins, temperature=1.0)
    assert sorted(texts(drawn)) == ["a0", "a1", "a2", "b0"]
    assert drawn.table["request"].is_unique


def test_answers_that_end_otherwise(endpoint):
    replies = {
        "a": said("Rom\nParis"),
        "b": said("Rom", "length"),
        "c": said(None, "content_filter"),
        "d": said(None, refusal="I can't."),
        "e": said("Rom"),
        "f": said("half a pair \ud83d"),
    }
    endpoint.script = lambda text, attempt: replies[text]
    table = ask(served(endpoint), LETTERS[:6], stop="\n").table
    assert table["text"].tolist() == ["Rom", "Rom", "", "I can't.", "Rom", "half a pair �"]
    reasons = ["stop", "length", "content_filter", "stop", "stop", "stop"]
    assert table["reason"].tolist() == reasons
    assert ask(served(endpoint), LETTERS[4:5]).table["reason"].tolist() == ["eos"]


def test_counts_that_the_server_does_not_give_are_missing(endpoint, tmp_path, capsys):
    reply = said("A")
    del reply[2]["usage"]
    endpoint.script = lambda text, attempt: reply
    found = ask(
        served(endpoint, price_in=1.0, price_out=1.0), LETTERS[:1], store=tmp_path, progress=True
    )
    assert found.tokens == {"in": None, "out": None} and found.cost is None
    assert found.table["n_tokens"].isna().all()
    assert "not counted" in capsys.readouterr().err
    assert ServedGenerations.load(found.save(tmp_path / "saved")).table.equals(found.table)


def test_cost_is_printed(endpoint, tmp_path, capsys):
    model = served(endpoint, price_in=1000.0, price_out=5000.0)
    ask(model, LETTERS[:2], store=tmp_path, progress=True)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "2 requests (0 answered before), 20 tokens in, 8 out, cost 0.060000" in last
    ask(model, LETTERS[:3], store=tmp_path, progress=True)
    assert "3 requests (2 answered before)" in capsys.readouterr().err


def test_a_notebook_with_a_running_event_loop_can_ask(endpoint):
    async def cell() -> ServedGenerations:
        return ask(served(endpoint))

    assert texts(asyncio.run(cell())) == list("ABCDEFGH")


# --- failures ---


def test_one_prompt_without_an_answer_ends_the_run_and_the_rest_is_kept(endpoint, tmp_path):
    endpoint.script = lambda text, n: failed(500, "out of luck") if text == "c" else echo(text, n)
    with pytest.raises(ServedError, match="out of luck") as told:
        ask(served(endpoint, concurrency=1), store=tmp_path)
    assert "'q2' (de)" in str(told.value) and "after 3 tries" in str(told.value)
    assert "Of 8 requests 2 were answered: kept in" in str(told.value)
    assert endpoint.asked == ["a", "b", "c", "c", "c"]

    endpoint.script = echo
    endpoint.bodies.clear()
    assert texts(ask(served(endpoint), store=tmp_path)) == list("ABCDEFGH")
    assert sorted(endpoint.asked) == list("cdefgh")


def test_requests_under_way_are_waited_for_when_another_fails(endpoint, tmp_path):
    def script(text: str, attempt: int) -> Reply:
        endpoint.wait_until_busiest(3)
        if text == "a":
            return failed(400, "bad prompt")
        time.sleep(0.3)
        return said(text.upper())

    endpoint.script = script
    with pytest.raises(ServedError, match="Of 8 requests 2 were answered"):
        ask(served(endpoint), store=tmp_path)
    assert sorted(endpoint.asked) == ["a", "b", "c"]


NOISE = {
    "html": (200, {"content-type": "text/html"}, b"<html>Welcome</html>"),
    "broken json": (200, {}, b'{"choices": ['),
    "another api": (200, {}, {"result": "Rom"}),
    "no choices": (200, {}, {"choices": [], "model": "m"}),
    "a list": (200, {}, [1, 2]),
    "no message": (200, {}, {"choices": [{"index": 0, "text": "Rom"}]}),
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_noise_is_named_as_such(endpoint, noise):
    endpoint.script = lambda text, attempt: noise
    with pytest.raises(ServedError, match=r"'q0' \(de\).*none of the OpenAI API's.*/v1"):
        ask(served(endpoint), LETTERS[:1])
    assert len(endpoint.asked) == 1


def test_a_completion_without_text_is_noise(endpoint):
    endpoint.reply = lambda body, headers: (200, {}, {"choices": [{"text": None}]})
    with pytest.raises(ServedError, match="no text in"):
        ask(served(endpoint, chat=False), LETTERS[:1])


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, "--refused empty"),
        (401, "no key: name its variable in api_key_env"),
        (404, "/v1"),
        (422, "does not take this request"),
        (429, "Lower concurrency"),
    ],
)
def test_what_to_do_about_a_status(endpoint, status, hint):
    endpoint.script = lambda text, attempt: failed(status, "so it is")
    with pytest.raises(ServedError, match=f"status {status}: so it is") as told:
        ask(served(endpoint, max_retries=0), LETTERS[:1])
    assert hint in str(told.value)


def test_refused_prompts_are_an_error_or_empty_answers(endpoint, tmp_path, capsys):
    """A content filter takes two of the prompts; after the first refusal nothing could go on."""

    def picky(text: str, attempt: int) -> Reply:
        return failed(400, "filtered") if text in "bf" else echo(text, attempt)

    endpoint.script = picky
    priced: dict[str, Any] = {"price_in": 1e6, "price_out": 0.0}
    for _ in range(2):  # a later run ends there as well
        with pytest.raises(ServedError, match=r"status 400: filtered.*--refused empty"):
            ask(served(endpoint, concurrency=1), store=tmp_path)
    assert endpoint.asked.count("a") == 1
    model = served(endpoint, refused="empty", **priced)
    found = ask(model, [*LETTERS, Prompt("b", "de", "again")], store=tmp_path, progress=True)
    assert texts(found) == ["A", "", *"CDE", "", *"GH", ""]
    assert found.table["reason"].tolist().count("refused") == 3
    assert found.provenance["refused"] == 2 and found.provenance["answered_by"] == ["m-1"]
    assert found.tokens == {"in": 60, "out": 24} and found.cost == 60  # of what was answered
    assert "2 of them were refused" in (err := capsys.readouterr().err) and "filtered" in err
    assert ServedGenerations.load(found.save(tmp_path / "saved")).table.equals(found.table)
    # What was refused is no answer: it is asked again, and in the end taken.
    endpoint.bodies.clear()
    endpoint.script = echo
    assert texts(ask(served(endpoint), store=tmp_path)) == list("ABCDEFGH")
    assert sorted(endpoint.asked) == ["b", "f"]


@pytest.mark.parametrize("status", [401, 403, 404, 422, 429, 500])
def test_only_status_400_is_about_the_prompt(endpoint, status):
    endpoint.script = lambda text, n: echo(text, n) if text == "a" else failed(status)
    with pytest.raises(ServedError, match=f"status {status}"):
        ask(served(endpoint, refused="empty", max_retries=0))


def test_a_request_that_is_wrong_as_such_is_no_empty_answer(endpoint, tmp_path):
    endpoint.script = lambda text, attempt: failed(400, "temperature is not supported")
    with pytest.raises(ServedError, match=r"All 8 requests were refused\..*not supported"):
        ask(served(endpoint, refused="empty"), store=tmp_path)


def test_slow_servers_are_timed_out(endpoint):
    late = threading.Event()
    endpoint.script = lambda text, attempt: (late.wait(5), said("A"))[1]
    with pytest.raises(ServedError, match=r"no answer within 0\.2 s. Raise timeout"):
        ask(served(endpoint, timeout=0.2, max_retries=0), LETTERS[:1])
    late.set()


def test_no_server_at_all(endpoint):
    with serving(Endpoint()) as gone:
        pass
    with pytest.raises(ServedError, match=r"no connection .*Is the server running"):
        ask(served(gone, max_retries=0), LETTERS[:1])


def test_a_store_that_cannot_be_written_to_costs_nothing(endpoint, tmp_path):
    (tmp_path / "served").write_text("in the way")
    with pytest.raises(StoreError):
        ask(served(endpoint), store=tmp_path)
    assert endpoint.asked == []


def test_an_answer_that_cannot_be_kept_ends_the_run(endpoint, tmp_path):
    def pull_the_rug(text: str, attempt: int) -> Reply:
        (path,) = (tmp_path / "served").glob("*.jsonl")
        path.unlink()
        path.mkdir()
        return said("A")

    endpoint.script = pull_the_rug
    with pytest.raises(StoreError, match="Keeping an answer failed"):
        ask(served(endpoint, concurrency=1), store=tmp_path)
    assert len(endpoint.asked) == 1


# --- kills ---

PROGRAM = """
import signal, sys
from xlens import Prompt
from xlens.served import ServedModel, served_generate

# A shell that starts this in the background has its children ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

def run():
    asked = [Prompt(text, "de", f"q{n}") for n, text in enumerate("abcdefgh")]
    model = ServedModel("m", sys.argv[1], concurrency=2)
    served_generate(model, asked, store=sys.argv[2], progress=False)

try:
    run()
except KeyboardInterrupt:
    print("interrupted", flush=True)
run()
"""


def journal(store: Path) -> Path:
    (path,) = (store / "served").glob("*.jsonl")
    return path


def test_ctrl_c_then_kill_then_the_rest(endpoint, tmp_path):
    """One process is interrupted, goes on and is killed: what was answered is not asked again."""
    over = threading.Event()

    def script(text: str, attempt: int) -> Reply:
        if text in "cfgh" and attempt == 0:
            over.wait(100)
        return said(text.upper())

    def wait_for(kept: int, hanging: int) -> None:
        deadline = time.monotonic() + 100
        while endpoint.busy < hanging or journal(tmp_path).read_bytes().count(b"answer") < kept:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)

    endpoint.script = script
    command = [sys.executable, "-c", PROGRAM, endpoint.url, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while not list(tmp_path.glob("served/*.jsonl")):
            assert process.poll() is None
            time.sleep(0.05)
        wait_for(kept=4, hanging=2)  # a b d e; c and f hang
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"  # now, not when they time out
        wait_for(kept=6, hanging=4)  # c and f; g and h hang
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        over.set()
    assert sorted(endpoint.asked) == list("abccdeffgh")
    endpoint.bodies.clear()
    endpoint.script = echo
    assert texts(ask(ServedModel("m", endpoint.url), store=tmp_path)) == list("ABCDEFGH")
    assert sorted(endpoint.asked) == ["g", "h"]


@pytest.mark.parametrize("cut", [1, 20, 150])
def test_a_line_that_was_cut_off_is_asked_again(endpoint, tmp_path, cut):
    model = served(endpoint, concurrency=1)
    whole = ask(model, store=tmp_path)
    path = journal(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    endpoint.bodies.clear()
    again = ask(model, store=tmp_path)
    assert again.table.equals(whole.table) and again.provenance == whole.provenance
    # Only the line's end is missing where one byte is.
    assert endpoint.asked == ([] if cut == 1 else ["h"])
    assert ask(model, store=tmp_path).table.equals(whole.table)
    json.loads(path.read_bytes().splitlines()[-1])


# --- keys ---


@pytest.mark.parametrize("before", [0, 340], ids=["shown whole", "cut off in the key"])
def test_the_key_is_sent_and_nowhere_written(
    before, endpoint, tmp_path, monkeypatch, caplog, capfd
):
    def tells_the_key(text: str, attempt: int) -> Reply:
        if text == "h":
            return failed(401, "x" * before + f" Incorrect API key provided: {KEY}")
        return failed(429) if attempt == 0 else echo(text, attempt)

    endpoint.script = tells_the_key
    model = served(endpoint, api_key_env="SOME_KEY", concurrency=1)
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")  # as out of a file
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(ServedError, match="the key in SOME_KEY") as e,
    ):
        ask(model, store=tmp_path / "store", progress=True)
    found = ask(model, LETTERS[:7], store=tmp_path / "store", progress=True)
    found.save(tmp_path / "result")
    assert {headers["authorization"] for headers in endpoint.headers} == {f"Bearer {KEY}"}

    out, err = capfd.readouterr()
    written = "".join(traceback.format_exception(e.value)) + repr(e.value.__context__)
    written += repr(model) + repr(found) + str(found.provenance) + out + err + caplog.text
    written += "".join(str(vars(record)) for record in caplog.records)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) >= 4  # answers, their lock, a table, a header
    for half in (KEY, KEY[:12], KEY[-12:]):
        assert half not in written
        assert not [p for p in files if half.encode() in p.read_bytes()]


def test_a_key_goes_to_no_address_that_it_was_not_meant_for(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    ask(served(endpoint), LETTERS[:1])
    assert KEY not in str(endpoint.headers)
    ask(served(endpoint, api_key_env="OPENAI_API_KEY"), LETTERS[:1])
    assert endpoint.headers[-1]["authorization"] == f"Bearer {KEY}"


def test_the_key_is_read_when_something_is_asked(endpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    model = served(endpoint, api_key_env="SOME_KEY")
    with pytest.raises(ValueError, match="SOME_KEY, which is not set"):
        ask(model, store=tmp_path)
    monkeypatch.setenv("SOME_KEY", "“smart”")
    with pytest.raises(ValueError, match="SOME_KEY has characters") as told:
        ask(model, store=tmp_path)
    assert "smart" not in str(told.value) and endpoint.asked == []
    monkeypatch.setenv("SOME_KEY", KEY)
    ask(model, store=tmp_path)
    monkeypatch.delenv("SOME_KEY")
    assert texts(ask(model, store=tmp_path)) == list("ABCDEFGH")


@pytest.mark.parametrize(
    "where",
    [
        {"api_key_env": KEY},
        {"api_key_env": "abcdef0123456789"},
        {"base_url": f"https://me:{KEY}@example.org/v1"},
        {"base_url": f"https://example.org/v1?key={KEY}"},
    ],
)
def test_a_key_in_the_wrong_place_is_refused_and_not_shown(where):
    with pytest.raises(ValueError) as told:
        ServedModel("m", **where)
    secret = where.get("api_key_env", KEY)
    assert secret not in str(told.value)


# --- requests and bad input ---


def test_what_is_sent(endpoint):
    model = served(endpoint, system="Kurz!", extra_body={"top_p": 0.9})
    ask(model, LETTERS[:1], max_new_tokens=5, stop=["x", "y"], temperature=None, seed=7)
    assert endpoint.bodies == [
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Kurz!"},
                {"role": "user", "content": "a"},
            ],
            "max_tokens": 5,
            "stop": ["x", "y"],
            "seed": 7,
            "top_p": 0.9,
        }
    ]
    # OpenAI's newer models know another name for it, and only four stop strings.
    how: dict[str, Any] = {"max_new_tokens": 5, "stop": list("12345"), "temperature": 0.0}
    body = ServedModel("gpt").request("a", **how)
    assert body["max_completion_tokens"] == 5 and "max_tokens" not in body
    assert body["stop"] == list("1234") and body["temperature"] == 0
    assert ServedModel("gpt", chat=False).request("a", **how)["max_tokens"] == 5


def test_the_temperature_is_the_models_unless_another_is_given(endpoint):
    for temperature in (0.0, 0.5, None):
        model = served(endpoint, temperature=temperature)
        found = ask(model, LETTERS[:1])
        assert endpoint.bodies[-1].get("temperature") == temperature
        assert found.provenance["generation"]["temperature"] == temperature
        assert model.provenance()["temperature"] == temperature
        other = ask(model, LETTERS[:1], temperature=0.25).provenance
        assert endpoint.bodies[-1]["temperature"] == 0.25 == other["generation"]["temperature"]
        assert other["temperature"] == temperature  # the model's own fact stays


def test_every_option_is_part_of_the_key(endpoint, tmp_path):
    for how in ({}, {"system": "s"}, {"extra_body": {"top_p": 0.5}}):
        ask(served(endpoint, **how), LETTERS[:1], store=tmp_path)
    for how in ({"max_new_tokens": 5}, {"stop": "x"}, {"seed": 1}, {"temperature": None}):
        ask(served(endpoint), LETTERS[:1], store=tmp_path, **how)
    assert len(endpoint.asked) == 7
    # However it is said: a temperature of its own and one of the call are the same.
    ask(served(endpoint, temperature=None), LETTERS[:1], store=tmp_path)
    ask(served(endpoint, temperature=0.5), LETTERS[:1], store=tmp_path, temperature=0.0)
    assert len(endpoint.asked) == 7
    # How it is asked is not: pace and price leave the answer as it is.
    ask(
        served(endpoint, concurrency=1, price_in=1.0, price_out=1.0, refused="empty"),
        LETTERS[:1],
        store=tmp_path,
    )
    assert len(endpoint.asked) == 7


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"model": ""}, "model is empty"),
        ({"base_url": "localhost:8000/v1"}, "http://localhost:8000/v1"),
        ({"system": "s", "chat": False}, "system needs chat=True"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"max_retries": -1}, "max_retries -1"),
        ({"timeout": 0.0}, "timeout 0.0"),
        ({"price_in": 1.0}, "give both"),
        ({"price_in": 1.0, "price_out": -1.0}, "not below 0"),
        ({"extra_body": {"x": {1, 2}}}, "no exact JSON form"),
        ({"temperature": -0.5}, "temperature is -0.5"),
        ({"temperature": float("nan")}, "temperature is nan"),
    ],
)
def test_bad_models_are_refused(how, what):
    with pytest.raises(ValueError, match=what):
        ServedModel(**{"model": "m", **how})


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"max_new_tokens": 0}, "at least 1 token"),
        ({"stop": ["a", ""]}, "empty string"),
        ({"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_bad_options_are_refused(endpoint, how, what):
    with pytest.raises(ValueError, match=what):
        ask(served(endpoint), **how)
    assert endpoint.asked == []
