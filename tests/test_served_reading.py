"""`xlens xmrc` taken up again, with models behind endpoints, and what it refuses before it asks."""

import json
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import readings
import yaml
from endpoint import Endpoint, Reply, echo, failed, serving

import tiny
from xlens.cli import main, study_job
from xlens.report import write_report
from xlens.studies import Loading
from xlens.tasks.xmrc import Predictions

pytest.importorskip("openai", reason="the extra [api] is not installed: make install")

LINE = ("--questions", "en,de", "--settings", "en-en", "x-x", "--n-items", "4")
LINE += ("--n-controls", "2", "--max-new-tokens", "3", "--controls", "mismatched")
ASKED = 12  # four questions in two languages, and two of them with exchanged texts
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    """A base model without a chat template. Read it only."""
    return tiny.make("gpt2", tmp_path_factory.mktemp("models") / "tiny", n_positions=512)


@pytest.fixture
def data(tmp_path) -> Path:
    """Files as a user has them: one per language."""
    folder = tmp_path / "stories"
    folder.mkdir()
    for tag in ("en", "de"):
        text = json.dumps(readings.squad(tag), ensure_ascii=False)
        (folder / f"stories.{tag}.json").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as there:
        yield there


@pytest.fixture
def run(tmp_path, data, monkeypatch, capsys) -> Run:
    """`xlens xmrc` on these questions, into one folder: exit code, what it said, its errors."""
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    # A page takes a second.
    monkeypatch.setattr(study_job, "write_report", lambda run, **_: run.report_file)

    def run(*line: object, out: str = "run") -> tuple[int, str, str]:
        capsys.readouterr()
        options = ["--data", data, *LINE, "--out", tmp_path / out]
        monkeypatch.setattr(sys, "argv", ["xlens", "xmrc", *map(str, line)])
        with pytest.raises(SystemExit) as end:
            main(["xmrc", *map(str, line), *map(str, options)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err, said.err[-3000:]
        return int(end.value.code or 0), said.out, said.err

    return run


def config(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["xmrc"]


def plain(*models: Path) -> list[object]:
    return [*models, "--shots", "0", "--chat", "no"]


# --- taken up again ---


def test_questions_that_were_corrected_meanwhile_are_not_mixed_with_old_ones(
    run, gpt2, data, endpoint, monkeypatch
):
    endpoint.script = lambda text, attempt: failed(400, "not today")
    line = (gpt2, f"m@{endpoint.url}", "--shots", "0")
    assert run(*line)[0] == 2  # the first is done, the second is not
    path = data / "stories.de.json"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole.replace("Es war einmal. ", "Es war einmal… "), encoding="utf-8")
    endpoint.script = echo
    endpoint.bodies.clear()
    monkeypatch.setattr(Loading, "load", lambda *how: pytest.fail("loaded"))
    code, _, error = run(*line)
    assert code == 2 and "data changed since" in error and "--overwrite" in error
    assert endpoint.asked == []
    path.write_text(whole, encoding="utf-8")
    assert run(*line)[0] == 0


def test_a_checkpoint_that_was_trained_on_is_not_taken_for_the_old_one(run, tmp_path):
    def make(seed: int) -> Path:
        return tiny.make("gpt2", tmp_path / "model", n_positions=512, seed=seed)

    line = plain(make(0))
    loads: list[str] = []
    real = Loading.load

    def counted(how: Loading, name: str) -> Any:
        loads.append(name)
        return real(how, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loading, "load", counted)
        assert run(*line)[0] == 0 and len(loads) == 1
        assert run(*line)[0] == 0 and len(loads) == 1  # nothing is left to do
        make(1)
        code, _, error = run(*line)
        assert code == 2 and "model changed since" in error and len(loads) == 2
        make(0)  # a copy, say: new files, the same weights
        assert run(*line)[0] == 0 and len(loads) == 3
        assert run(*line)[0] == 0 and len(loads) == 3


@pytest.mark.slow
def test_what_shapes_no_answer_may_change(run, endpoint, tmp_path, monkeypatch):
    endpoint.script = lambda text, n: failed(429) if len(endpoint.asked) > 6 else echo(text, n)
    names = [f"{name}@{endpoint.url}" for name in ("a", "b")]
    code, _, error = run(*names)
    assert code == 2 and "Lower concurrency" in error
    endpoint.script = echo
    monkeypatch.setenv("SOME_KEY", "sk-0123456789")
    new = ["--concurrency", 1, "--api-key-env", "SOME_KEY", "--price-in", 1, "--price-out", 2]
    assert run(*names, *new)[0] == 0
    found = config(tmp_path / "run")
    assert (found["concurrency"], found["price_out"]) == (1, 2)
    assert endpoint.headers[-1]["authorization"] == "Bearer sk-0123456789"
    # All is done: the pair only makes another report.
    asked = len(endpoint.asked)
    monkeypatch.setattr(study_job, "write_report", write_report)
    assert run(*names, "--pair", ":".join(names))[0] == 0 and len(endpoint.asked) == asked
    assert "side by side" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "pair" in config(tmp_path / "run") and "price_in" not in config(tmp_path / "run")
    code, _, error = run(*names, "--temperature", 0.5)
    assert code == 2 and "differs in xmrc.temperature" in error


# --- what is sent ---


@pytest.mark.slow
def test_temperature_and_further_fields_are_sent(run, endpoint, tmp_path):
    def newer(text: str, attempt: int) -> Reply:
        body = endpoint.bodies[-1]
        return failed(400, "no temperature, please") if "temperature" in body else echo(text, 0)

    endpoint.script = newer
    name = f"m@{endpoint.url}"
    code, _, error = run(name, "--concurrency", 1)
    assert code == 2 and "no temperature, please" in error
    more = ["--temperature", "none", "--extra-body", '{"reasoning": {"effort": "low"}}']
    assert run(name, *more)[0] == 0
    assert endpoint.bodies[-1]["reasoning"] == {"effort": "low"}
    assert config(tmp_path / "run")["temperature"] == "none"
    made = Predictions.load(tmp_path / "run" / "results" / "m" / "predictions").provenance
    assert made["temperature"] is None and made["extra_body"] == {"reasoning": {"effort": "low"}}
    # The file that was written says the same.
    endpoint.bodies.clear()
    with pytest.raises(SystemExit) as end:
        where = [str(tmp_path / "run" / "config.yaml"), "xmrc", "--out", str(tmp_path / "again")]
        main(["--config", *where])
    assert not end.value.code and config(tmp_path / "again") == config(tmp_path / "run")


def test_refused_prompts_can_count_as_empty_answers(run, endpoint, tmp_path):
    filtered = "Wo schläft"
    endpoint.script = lambda text, n: failed(400, "no") if filtered in text else echo(text, n)
    name = f"m@{endpoint.url}"
    code, _, error = run(name)
    assert code == 2 and "--refused empty" in error
    code, told, _ = run(name, "--refused", "empty")
    table = Predictions.load(tmp_path / "run" / "results" / "m" / "predictions").table
    refused = table[table["reason"] == "refused"]
    assert 0 < len(refused) < len(table) == ASKED
    assert refused["question"].str.contains(filtered).all() and set(refused["prediction"]) == {""}
    assert code == 0 and f"so that the answer is empty: {len(refused)} of {ASKED} prompts" in told


# --- refused before anything is asked ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--too-long", "truncate"], "too_long='truncate' needs a tokenizer"),
        (["--too-long", "skip"], "too_long='skip' needs a tokenizer"),
        (["--chat", "no", "--shots", "99"], "need 99 demonstrations"),
        (["--extra-body", "{top_p: 1}"], "--extra-body is no JSON"),
        (["--extra-body", "[1]"], "no object"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--price-in", "1"], "give both"),
    ],
)
def test_endpoints_are_not_asked_what_cannot_be(run, endpoint, tmp_path, options, message):
    code, _, error = run(f"m@{endpoint.url}", *options)
    assert code == 2 and message in error
    assert endpoint.asked == [] and not (tmp_path / "run").exists()


def test_a_missing_client_shows_before_a_model_is_loaded(
    run, gpt2, endpoint, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.setattr(Loading, "load", None)
    code, _, error = run(gpt2, f"m@{endpoint.url}", "--shots", 0)
    assert code == 2 and "xlens-interp[api]" in error and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chat", "yes", "--shots", "0"], "has no chat template"),
        (["--shots", "0"], "more than 61 tokens"),
        (["--too-long", "truncate"], "need 3 demonstrations"),
    ],
)
def test_what_only_a_later_model_refuses_shows_before_the_first_is_loaded(
    run, data, gpt2, tmp_path, options, message, monkeypatch
):
    """The first model has a template and a long context, the second neither."""
    for path in data.iterdir():  # four questions: too few for three demonstrations
        whole = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**whole, "data": whole["data"][:1]}), encoding="utf-8")
    first = tiny.make("gpt2", tmp_path / "first", n_positions=1024)
    words = tiny.tokenizer("gpt2")
    words.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    words.save_pretrained(first)
    small = tiny.make("gpt2", tmp_path / "small", n_positions=64)
    monkeypatch.setattr(Loading, "load", None)
    code, _, error = run(first, small, *options)
    assert code == 2 and message in error and "small: " in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option", ["--api-key-env", "--price-in", "--temperature", "--extra-body", "--refused"]
)
def test_options_of_endpoints_need_one(run, gpt2, tmp_path, option, monkeypatch):
    monkeypatch.setattr(Loading, "load", None)
    value = {"--api-key-env": "sk-abcdef", "--extra-body": "{}", "--refused": "empty"}
    code, said, error = run(*plain(gpt2), option, given := value.get(option, "0.7"))
    assert code == 2 and f"{option} can be given for models behind an endpoint" in error
    assert given not in said + error
    assert not (tmp_path / "run").exists()


def test_a_key_instead_of_its_variables_name_is_written_nowhere(run, endpoint, gpt2, tmp_path):
    key = "sk-0123456789abcdef"
    secret = endpoint.url.replace("http://", f"http://me:{key}@")
    for line in (
        [gpt2, f"m@{endpoint.url}", "--api-key-env", key],
        [gpt2, f"m@{secret}"],
        [gpt2, f"m@{secret}", "--pair", "a:b"],
    ):
        code, said, error = run(*line)
        assert code == 2 and key not in said + error
        assert not (tmp_path / "run").exists()


# --- memory ---


def test_a_model_is_let_go_before_the_next_is_loaded(run, gpt2, tmp_path, monkeypatch):
    (tmp_path / "twin").symlink_to(gpt2)
    real = Loading.load
    alive: list[int] = []
    before: list[weakref.ref] = []

    def load(*how: Any) -> Any:
        alive.append(sum(each() is not None for each in before))
        model = real(*how)
        before.extend([weakref.ref(model), weakref.ref(model.hf_model)])
        return model

    monkeypatch.setattr(Loading, "load", load)
    assert run(*plain(gpt2, tmp_path / "twin"))[0] == 0
    assert alive == [0, 0]
