"""`kill -9` in relevance, variants and tallies: the next run ends with the bytes of one that lived.

The driver is this file run as a script: it makes a model once and forks for every trial.
"""

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from test_store_crash import fork, intercepted, wait

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]
VERBS = ("relevance", "harvest variants", "score variants", "tally")
TRIALS = 6


def verbs() -> dict[str, Any]:
    import kit
    from test_shared import parallel

    from xlens import engine
    from xlens.engine import interventions

    for module, name, size in (
        ("relevance", "SHARD_PROMPTS", 3),
        ("variants", "TRUNK_BYTES", 5_000),
        ("tally", "SHARD_TOKENS", 60),
    ):
        setattr(import_module(f"xlens.engine.{module}"), name, size)
    model, asked = kit.fresh("llama"), parallel()
    push = interventions.add(torch.ones(model.d_model), layers=1, slot="last", strength=0.5)
    how = {"plain": (), "pushed": push}

    def relevance(store: Path) -> object:
        targets = [5] * len(asked)
        return engine.relevance(model, asked, targets=targets, store=store, progress=False)

    def harvested(store: Path) -> object:
        return engine.harvest_variants(model, asked, how, store=store, progress=False)

    def scored(store: Path) -> object:
        return engine.score_variants(model, asked, [" ja"], how, store=store, progress=False)

    def tally(store: Path) -> object:
        return engine.tally(model, asked, store=store, progress=False)

    return dict(zip(VERBS, (relevance, harvested, scored, tally), strict=True))


def files(folder: Path) -> dict[str, bytes]:
    found = (p for p in sorted(folder.rglob("*")) if p.is_file())
    kept = (p for p in found if p.name.startswith("shard-") or p.name == "manifest.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def drive(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, run in verbs().items():
        changes = folder / f"{name} changes"

        def counted(run: Any = run, name: str = name, changes: Path = changes) -> None:
            seen: list[str] = []
            with intercepted(lambda what, _args: seen.append(what)):
                run(folder / f"{name} whole")
            changes.write_text(str(len(seen)))

        assert wait(fork(counted)) == 0
        whole, n = files(folder / f"{name} whole"), int(changes.read_text())
        codes, same, left = [], [], []
        for trial in range(TRIALS):
            root, point = folder / f"{name} {trial}", n * (trial + 1) // (TRIALS + 1)

            def killed(run: Any = run, root: Path = root, point: int = point) -> None:
                steps = count()

                def hook(_what: str, _args: tuple[Any, ...]) -> None:
                    if next(steps) == point:
                        os.kill(os.getpid(), signal.SIGKILL)

                with intercepted(hook):
                    run(root)

            codes.append(wait(fork(killed)))
            left.append(files(root) != whole)
            codes.append(wait(fork(lambda run=run, root=root: run(root))))
            same.append(files(root) == whole)
        out[name] = {"codes": codes, "same": same, "left": left, "files": len(whole)}
    return out


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    here = Path(__file__)
    path = [str(here.parent.parent), str(here.parent), *sys.path]
    done = subprocess.run(
        [sys.executable, str(here), str(tmp_path_factory.mktemp("crash"))],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("verb", VERBS)
def test_a_kill_at_any_moment_and_the_next_run_ends_with_the_same_bytes(outcome, verb):
    found = outcome[verb]
    assert found["codes"] == [-signal.SIGKILL, 0] * TRIALS
    assert all(found["left"]) and all(found["same"]) and found["files"] > 3


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(drive(Path(sys.argv[1]))))
