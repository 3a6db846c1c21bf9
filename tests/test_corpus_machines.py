"""Files counted in several processes and on a Ray cluster: the same bytes, whoever counts what."""

import json
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

import xlens.cluster
from xlens.cli import main
from xlens.corpus import FACT, count_facts, counting, machines
from xlens.corpus.counting import Job

pytest.importorskip("hyperscan")
QUIET = {"progress": False}
FACTS = pd.DataFrame(
    [("1", "capital", "en", "Paris", "France"), ("2", "capital", "ja", "東京", "日本")],
    columns=list(FACT),
)
TEXT = "In FRANCE, they say. PARIS!\n東京は日本の首都\nparisian France\n" * 30


@pytest.fixture
def corpus(tmp_path: Path) -> list[Path]:
    """Three files, the last one the largest."""
    paths = [tmp_path / f"{n}.txt" for n in range(3)]
    for n, path in enumerate(paths, 1):
        path.write_text(TEXT * n, encoding="utf-8")
    return paths


class Fake(types.ModuleType):
    """What is used of Ray, in this process; a task runs when it is waited for."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause):
                self.cause = cause

    def __init__(self):
        super().__init__("ray")
        self.asked, self.most, self.under_way, self.cancelled = [], 0, 0, 0
        self.lost: set[str] = set()

    def is_initialized(self):
        return True

    def put(self, what):
        return what

    def remote(self, of):
        fake = self

        class Remote:
            def options(self, **how):
                fake.how = how
                return self

            def remote(self, *args):
                fake.under_way += 1
                fake.most = max(fake.most, fake.under_way)
                return Task(of, args)

        return Remote()

    def wait(self, tasks):
        return tasks[-1:], tasks[:-1]  # the last one first

    def get(self, task):
        self.under_way -= 1
        if task.args[1].name in self.lost:
            raise self.exceptions.RayError("out of memory\nmore")
        try:
            self.asked.append(task.args)
            return task.of(*task.args)
        except Exception as error:
            raise self.exceptions.RayTaskError(error) from error

    def cancel(self, task, force):
        self.cancelled += 1


class Task:
    def __init__(self, of, args):
        self.of, self.args = of, args


@pytest.fixture
def fake(monkeypatch) -> Fake:
    monkeypatch.setattr(machines, "_jobs", [])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", made := Fake())
    return made


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_cluster_counts_the_same_bytes_in_any_order(tmp_path, corpus, fake):
    alone = count_facts(corpus, FACTS, window=3, **QUIET)
    there = count_facts(
        corpus, FACTS, window=3, executor="ray?workers=2&cpus=3", out=tmp_path / "out", **QUIET
    )
    assert written(there.save(tmp_path / "b")) == written(alone.save(tmp_path / "a"))
    assert alone.facts["apart"].tolist() == [180, 180]
    assert fake.how == {"num_cpus": 3, "max_retries": 3} and fake.most == 2
    # The largest first; the states lie with the workers, whose disk is this one's.
    assert {args[1] for args in fake.asked} == set(corpus)
    assert all(args[2] is not None and args[3] is None for args in fake.asked)


@pytest.mark.parametrize("shared", [True, False])
def test_elsewhere_a_count_goes_on_where_it_was(tmp_path, corpus, fake, monkeypatch, shared):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    how = {"executor": "ray?shared=yes" if shared else "ray", "out": tmp_path / "out", **QUIET}
    fake.lost.add("1.txt")
    with pytest.raises(RuntimeError, match=r"lost over .*1\.txt' \(out of memory\)\. .*goes on"):
        count_facts(corpus, FACTS, **how)
    kept = list((tmp_path / "out" / "parts").glob("*.json"))
    assert len(kept) == len(fake.asked) == 1 and fake.cancelled == 1
    fake.lost.clear()
    counted = []
    run = Job.run
    monkeypatch.setattr(
        Job, "run", lambda job, path, *more: counted.append(path) or run(job, path, *more)
    )
    found = count_facts(corpus, FACTS, **how)
    assert found.facts["apart"].tolist() == [180, 180]
    # Who does not see the folder is sent the state, and sends it back.
    assert all((args[2] is None) is not shared for args in fake.asked)
    assert len(list((tmp_path / "out" / "parts").glob("*.json"))) == 3


def test_what_a_machine_can_not_do_is_said(tmp_path, corpus, fake, monkeypatch):
    monkeypatch.setattr(counting, "blocks", lambda path, how: [Path("/elsewhere/x").stat()])
    with pytest.raises(ValueError, match="does not see '/elsewhere/x': give a corpus"):
        count_facts(corpus, FACTS, executor="ray", **QUIET)

    def wrong(path, how):
        raise ValueError("it has changed")

    monkeypatch.setattr(counting, "blocks", wrong)
    with pytest.raises(ValueError, match=r"^it has changed$"):
        count_facts(corpus, FACTS, executor="ray", **QUIET)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"executor": "slurm"}, r"Unknown executor 'slurm'; .* with \?workers=N&cpus=N&shared=yes"),
        ({"executor": "ray?gpus=1"}, "Unknown executor"),
        ({"executor": "ray?workers=0"}, "workers is 0 in 'ray"),
        ({"executor": "ray", "workers": 4}, r"write 'ray\?workers=4'"),
    ],
)
def test_bad_executors(corpus, fake, given, said):
    with pytest.raises(ValueError, match=said):
        count_facts(corpus, FACTS, **given, **QUIET)
    assert not fake.asked


def test_without_ray(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr(machines.Job, "run", lambda *_: pytest.fail("it went on"))
    with pytest.raises(ValueError, match="needs Ray, which is not installed: pip install 'xlens"):
        count_facts(corpus, FACTS, executor="ray", **QUIET)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_the_command_on_ray(tmp_path, corpus, monkeypatch, capsys):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(xlens.cluster, "_connected", {})
    table = tmp_path / "facts.jsonl"
    FACTS.to_json(table, orient="records", lines=True)
    command = ["count", *map(str, corpus), "--facts", str(table), "--out"]
    try:
        for out, more in {"here": [], "there": ["--executor", "ray?workers=2"]}.items():
            with pytest.raises(SystemExit) as ended:
                main([*command, str(tmp_path / out), *more])
            assert ended.value.code == 0, capsys.readouterr().err
    finally:
        ray.shutdown()
    one, other = (written(tmp_path / out / "counts") for out in ("here", "there"))
    assert one == other
    for path in (tmp_path / "there" / "parts").glob("*.json"):
        assert json.loads(path.read_bytes())["state"]["done"]
