"""Checkpoints of a training as a series: found, read, ordered, run, fetched ahead and let go."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
import yaml
from test_studies import folder, here, small  # noqa: F401

import tiny
import xlens
from xlens.cli import main
from xlens.models import hub
from xlens.models.series import Checkpoint, find_series, in_order, read_series, told_by
from xlens.runs import RunDirectory
from xlens.studies import Loading, forecast
from xlens.studies.running.ahead import Ahead

pytestmark = pytest.mark.usefixtures("as_users_have_it")


@pytest.mark.parametrize(
    ("name", "step", "tokens"),
    [
        ("step1000", 1000, None),
        ("step1000-tokens4B", 1000, 4 * 10**9),
        ("stage1-step150-tokens1B", 150, 10**9),
        ("stage2-ingredient1-step1000-tokens5B", 1000, 5 * 10**9),
        ("global_step100000", 100_000, None),
        ("checkpoint-500", 500, None),
        ("iter_0002500", 2500, None),
        ("143000", 143_000, None),
        ("20.5B-tokens", None, 20_500_000_000),
        ("tokens_300M", None, 300_000_000),
        ("main", None, None),
        ("final", None, None),
        ("gpt2", None, None),
    ],
)
def test_names_tell_step_and_tokens(name, step, tokens):
    assert told_by(name) == (step, tokens)


def test_order_is_that_of_training():
    names = ["main", "stage2-step10-tokens1B", "step1000", "step20", "stage1-step150-tokens1B"]
    points = in_order(Checkpoint.named("m", name) for name in names)
    assert [p.name for p in points] == [
        "step20", "stage1-step150-tokens1B", "step1000", "stage2-step10-tokens1B", "main"
    ]  # fmt: skip


def test_series_of_models_that_come_with_xlens():
    everything = find_series("atlas", ["all"])
    steps = [p.step for p in everything]
    assert steps == sorted(steps) and len(steps) == 4  # the last is called final, too: once
    assert find_series("atlas", ["step*"]) == everything
    assert find_series("atlas", ["final", "step5*"])[0].name == "final"
    with pytest.raises(ValueError, match=r"No checkpoint of 'atlas' is called like 'epoch\*'"):
        find_series("atlas", ["epoch*"])


@pytest.fixture
def checkpoints(folder, tmp_path) -> Path:  # noqa: F811
    """A folder as a trainer leaves it: three checkpoints and other things."""
    place = tmp_path / "trained"
    for n, step in enumerate((30, 4, 200)):
        made = tiny.make("gpt2", tmp_path / f"m{n}", n_positions=512, seed=n + 1)
        shutil.copytree(made, place / f"checkpoint-{step}")
    (place / "logs").mkdir()
    return place


def test_series_of_a_folder_of_checkpoints(checkpoints):
    found = find_series(str(checkpoints), ["all"])
    assert [(p.name, p.step) for p in found] == [
        ("checkpoint-4", 4), ("checkpoint-30", 30), ("checkpoint-200", 200)
    ]  # fmt: skip
    assert all(p.revision is None and (Path(p.model) / "config.json").is_file() for p in found)
    (one,) = find_series(str(checkpoints), ["checkpoint-30"])
    assert one.model == str(checkpoints / "checkpoint-30")


def test_branches_of_the_hub_are_listed(monkeypatch):
    names = ("main", "step1000-tokens4B", "step500-tokens2B", "v1")
    monkeypatch.setattr(hub, "revisions", lambda name: names)
    found = find_series("org/model", ["step*"])
    assert [(p.revision, p.step, p.tokens) for p in found] == [
        ("step500-tokens2B", 500, 2 * 10**9), ("step1000-tokens4B", 1000, 4 * 10**9)
    ]  # fmt: skip
    assert [p.name for p in find_series("org/model", ["all"])][-2:] == ["main", "v1"]
    # A name isn't looked for: there may be no hub, and the weights in its cache.
    monkeypatch.setattr(hub, "revisions", None)
    assert find_series("org/model", ["step7"]) == (
        Checkpoint("org/model", "step7", "step7", 7, None),
    )


def test_a_hub_that_cannot_be_asked_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", _unreachable)
    with pytest.raises(ValueError, match=r"which revisions 'org/model' has.*name them one by one"):
        find_series("org/model", ["all"])


def _unreachable(*_, **__):
    raise ConnectionError("no route")


def test_a_list_is_read(checkpoints, tmp_path):
    lines = [
        "model\trevision\tname\tstep\ttokens",
        "atlas\tstep512\t\t\t",
        "atlas\tfinal\tlast\t9\t70",
    ]
    lines += ["trained/checkpoint-4\t\t\t\t"]
    (tmp_path / "series.tsv").write_text("\n".join(lines))
    found = read_series(tmp_path / "series.tsv")
    assert [(p.name, p.step, p.tokens) for p in found] == [
        ("step512", 512, None), ("last", 9, 70), ("checkpoint-4", 4, None)
    ]  # fmt: skip
    assert found[2].model == str(tmp_path / "trained/checkpoint-4")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ('{"revision": "step1"}', "line 1: lacks model"),
        ('{"model": "a", "step": "soon"}', '"step" is "soon"'),
        ('{"model": "a", "step": -1}', '"step" is -1'),
        ('{"model": "a", "when": 3}', "unknown columns"),
        ('{"model": 3}', '"model" is 3'),
        ('{"model": "a"}\n{"model": "a"}', "line 2: a second checkpoint is called 'a'"),
        ("", "empty"),
    ],
)
def test_lists_that_are_none(rows, told, tmp_path):
    (tmp_path / "series.jsonl").write_text(rows)
    with pytest.raises(ValueError, match=told):
        read_series(tmp_path / "series.jsonl")
    with pytest.raises(ValueError, match="No file"):
        read_series(tmp_path / "none.tsv")


def test_any_study_takes_a_series_and_goes_on_when_it_has_grown(checkpoints):
    study, held = small("choices"), checkpoints / "checkpoint-200"
    held.rename(checkpoints.parent / "later")
    loading = Loading(revision=("all",))
    first = xlens.run(study, str(checkpoints), loading=loading, out="run", progress=False)
    assert list(first.models) == ["trained@checkpoint-4", "trained@checkpoint-30"]
    before = {p: p.stat().st_mtime_ns for p in Path("run/results").rglob("result.json")}
    (checkpoints.parent / "later").rename(held)
    done = xlens.run(study, str(checkpoints), loading=loading, out="run", progress=False)
    assert list(done.models)[-1] == "trained@checkpoint-200" and len(done.models) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    tables = [parts["items/scores"].table["logprob"] for parts in done.models.values()]
    assert not tables[0].equals(tables[1])
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["choices"]["model"] == str(checkpoints)  # as it was asked: it can be run again
    assert config["choices"]["revision"] == ["all"]


def test_a_list_of_checkpoints_from_the_command_line(checkpoints, tmp_path, capsys):
    names = [f"trained/checkpoint-{n}" for n in (4, 30)]
    (tmp_path / "series.jsonl").write_text("\n".join(f'{{"model": "{n}"}}' for n in names))
    line = ["choices", "--series", "series.jsonl", "--items", "items.jsonl", "--n-items", "5"]
    with pytest.raises(SystemExit) as end:
        main([*line, "--out", "run"])
    assert not end.value.code, capsys.readouterr().err
    assert RunDirectory.open("run").models == ("checkpoint-4", "checkpoint-30")
    with pytest.raises(SystemExit) as end:
        main(["--config", "run/config.yaml", "choices", "--out", "run"])
    assert not end.value.code, capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*line, "--revision", "step1"])
    assert end.value.code == 2 and "Leave one of the two out" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main([*line, "--model", "atlas"])
    assert end.value.code == 2 and "names its models itself" in capsys.readouterr().err


def test_all_that_is_gone_is_named_at_once(checkpoints, tmp_path, caplog):
    names = ["trained/checkpoint-4", "./trained/checkpoint-5", "./trained/checkpoint-6"]
    (tmp_path / "series.jsonl").write_text("\n".join(f'{{"model": "{n}"}}' for n in names))
    study = small("choices")
    with pytest.raises(ValueError, match=r"2 of 3 checkpoints are not there: checkpoint-5, check"):
        forecast(study, loading=Loading(series=Path("series.jsonl")))
    left = forecast(study, loading=Loading(series=Path("series.jsonl"), absent="drop"))
    assert list(left) == ["checkpoint-4"] and "are left out" in caplog.text


class Disk:
    """A hub's cache that is not there: which revisions lie in it, and all that happened."""

    def __init__(self, monkeypatch, there=()):
        self.there, self.told = {*there}, []
        monkeypatch.setattr(hub, "cached", lambda name, commit: commit in self.there)
        monkeypatch.setattr(hub, "fetch", self.fetch)
        monkeypatch.setattr(hub, "release", self.release)

    def fetch(self, name, commit):
        self.told.append(f"+{commit}")
        self.there.add(commit)

    def release(self, name, commit):
        self.told.append(f"-{commit}")
        self.there.discard(commit)


class Spot:
    """A place of a run, as far as its weights are concerned."""

    def __init__(self, commit, kind="hub"):
        self.source = xlens.models.sources.Source(kind, "org/m", "m", revision=commit)


def pace(disk, places, keep):
    most = 0
    with Ahead(places, keep) as ahead:
        for place in places:
            ahead.begin(place)
            disk.there.add(place.source.revision)  # loaded
            ahead._pool.submit(int).result()  # what is fetched ahead has come
            most = max(most, len(disk.there))
            ahead.done(place)
    return most


def test_the_next_is_fetched_and_the_finished_released(monkeypatch):
    disk = Disk(monkeypatch, there=["b"])
    places = [Spot(c) for c in "abcd"]
    pace(disk, places, keep=0)
    # b lay there before: it is neither fetched nor taken away.
    assert disk.told == ["-a", "+c", "+d", "-c", "-d"]
    assert disk.there == {"b"}


def test_some_or_all_are_kept(monkeypatch):
    disk = Disk(monkeypatch)
    assert pace(disk, [Spot(c) for c in "abcde"], keep=1) == 3  # one kept, one runs, one comes
    assert disk.there == {"e"}
    disk = Disk(monkeypatch)
    pace(disk, [Spot(c) for c in "abc"], keep=None)
    assert disk.there == {*"abc"} and not any(told.startswith("-") for told in disk.told)


def test_what_is_not_of_a_hub_is_left_alone(monkeypatch):
    disk = Disk(monkeypatch)
    pace(disk, [Spot(c, kind="directory") for c in "ab"], keep=0)
    assert disk.told == []


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as its client asks of: branches, files and their sizes."""

    branches: ClassVar[dict[str, Path]] = {}
    fetched: ClassVar[list[str]] = []

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[-1] == "refs":
            refs = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit(name)}
                for name in self.branches
            ]
            return self.tell({"branches": refs, "tags": [], "converts": []})
        if parts[:2] == ["api", "models"]:
            if len(parts) not in (4, 6):
                return self.lost("EntryNotFound")
            name = branch(self.branches, parts[5] if len(parts) == 6 else "main")
            if not name:
                return self.lost("RevisionNotFound")
            files = [
                {"rfilename": p.name, "size": p.stat().st_size}
                for p in sorted(self.branches[name].iterdir())
            ]
            return self.tell({"id": "org/mini", "sha": commit(name), "siblings": files})
        if len(parts) != 5:
            return self.lost("EntryNotFound")
        name = branch(self.branches, parts[3])
        file = self.branches.get(name, Path("none")) / parts[-1]
        if not file.is_file():
            return self.lost("EntryNotFound" if name else "RevisionNotFound")
        if body:
            self.fetched.append(f"{name}/{file.name}")
        return self.tell(file.read_bytes(), commit(name), body=body)

    def lost(self, what):
        self.send_response(404)
        self.send_header("X-Error-Code", what)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def tell(self, what, sha="", *, body=True):
        content = what if isinstance(what, bytes) else json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        if sha:
            self.send_header("X-Repo-Commit", sha)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(content)


def commit(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def branch(branches, text: str) -> str:
    return next((name for name in branches if text in (name, commit(name))), "")


@pytest.fixture
def served(tmp_path):
    """`org/mini` with three branches on a hub of our own; the environment that finds it."""
    for n, name in enumerate(("main", "step1", "step2")):
        Hub.branches[name] = tiny.make("gpt2", tmp_path / name, n_positions=512, seed=n + 1)
    Hub.fetched.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        home = {"HF_HOME": str(tmp_path / "home"), "XLENS_CACHE": str(tmp_path / "cache")}
        home |= {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}
        yield os.environ | home | {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()


@pytest.mark.slow
def test_a_series_on_a_hub(served, tmp_path):
    """The hub's own client: listed, sized, fetched ahead, loaded, run, and let go afterwards."""

    def python(text: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", text], env=served, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = python(
        "from xlens.models import hub; name = 'org/mini'; commit, _ = hub.find(name, 'step1');"
        "print(hub.revisions(name), hub.size(name, commit), hub.cached(name, commit))"
    )
    size = (Hub.branches["step1"] / "model.safetensors").stat().st_size
    assert told.split("\n")[0] == f"('main', 'step1', 'step2') {size} False"
    line = "from xlens.studies import *; from xlens.studies import forecast, Loading;"
    line += "s = ChoicesStudy(items=('items.jsonl',), n_items=5, languages=('en', 'de'));"
    told = python(line + "print(forecast(s, 'org/mini', loading=Loading(revision=('step1',))))")
    assert f"fetched={size}" in told
    line = ["choices", "org/mini", "--revisions", "step*", "--items", "items.jsonl"]
    line += ["--n-items", "5", "--keep-weights", "1", "--out", "run"]
    python(f"import sys; sys.argv[1:] = {line!r}; from xlens.cli import main; main()")
    run = RunDirectory.open("run")
    assert run.models == ("org--mini@step1", "org--mini@step2")
    first, second = (run.parts(model)["items/scores"].table["logprob"] for model in run.models)
    assert not first.equals(second)
    weights = [told for told in Hub.fetched if told.endswith(".safetensors")]
    assert weights == ["step1/model.safetensors", "step2/model.safetensors"]  # each once
    kept = {path.parent.name for path in tmp_path.rglob("snapshots/*/model.safetensors")}
    assert kept == {commit("step2")}
    Hub.branches["step3"] = Hub.branches.pop("step1")  # one is gone, one new
    Hub.fetched.clear()
    python(f"import sys; sys.argv[1:] = {line!r}; from xlens.cli import main; main()")
    assert RunDirectory.open("run").models[-1] == "org--mini@step3"
    assert [told for told in Hub.fetched if told.endswith(".safetensors")] == [
        "step3/model.safetensors"
    ]
