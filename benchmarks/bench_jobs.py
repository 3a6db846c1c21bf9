"""Whole commands, from the shell to the report, over the floor that is in them.

Each runs as one types it, in a process of its own: imports, model, prompts, passes, intervals,
tables and page. Its floor is the time inside the forward passes of the model and of its random
twin, and inside the lens's products with the head, taken in the same run: what no way of asking the
same prompts can do without. (The head of `generate` and gradients are not in it, so where a command
has them the figure is higher.) So a regression of any room shows. On Gemma 3 270M itself, where the
extra `gemma` is installed; else, or with --quick, on the atlas.
"""

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from common import Times, scratch_folder, settings, shipped
from tables import Row, write

FLOOR = "forward passes and the lens's products with the head, in the same run"
CLASSES = {
    "gemma-3-270m": ("transformers.models.gemma3.modeling_gemma3", "Gemma3TextModel"),
    "atlas": ("transformers.models.llama.modeling_llama", "LlamaModel"),
}
# By name: the command's words, without the model; what of them is smaller with --quick.
JOBS = {
    "lens": "lens {model} --from fr --to de --n-items {many} --n-controls {few}",
    "choices": "choices {model} --languages en de fr --n-items {many}",
    "process": "process {model} --languages en de fr --n-items {few}",
    "facts": "facts {model} --languages en de fr --n-items {few} --n-candidates 4",
    "xmrc": "xmrc {model} --data cldr --context en --questions en de --n-items {texts}",
    "xmrc --phases": "xmrc {model} --data cldr --context en --questions en --n-items 8 "
    "--phases --n-phases 4 --phase-layers 6 12 --controls first-sentence",
}
TARGETS = {"lens": "≤ 1.5"}


@dataclass
class Passes:
    """What went through a model.

    Attributes:
        forward: CPU seconds inside its forward pass.
        head: Inside products of states with its head.
    """

    forward: float = 0.0
    head: float = 0.0


@contextmanager
def passes(kind: type[Any]) -> Generator[Passes]:
    """Time the forward passes of all models of a class, and their heads.

    Nothing is put in their place, as xlens sees that and computes otherwise: every 5 ms of CPU time
    the stack is looked at, and what went by since the last look is where it stands.
    """
    seen, forward = Passes(), inspect.unwrap(kind.forward).__code__
    last = time.process_time()

    def look(_: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.process_time()
        passed, last = now - last, now
        while frame is not None:
            if frame.f_code is forward:
                seen.forward += passed
                return
            if frame.f_code.co_qualname.startswith("Readout.onto"):
                seen.head += passed
                return
            frame = frame.f_back

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, 0.005, 0.005)
    try:
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def child(model: str, words: list[str]) -> None:
    """Run a command here, and print what it took as the last line."""
    from common import quiet

    quiet(int(os.environ["BENCH_THREADS"]))
    module, name = CLASSES[model]
    from xlens.cli import main as command

    with passes(getattr(importlib.import_module(module), name)) as seen:
        try:
            command(words)
        except SystemExit as end:
            if end.code:
                raise
    if not seen.forward:
        raise SystemExit(f"No forward pass of a {name} was seen.")
    print(json.dumps({"cpu": time.process_time(), **asdict(seen)}))


def run(model: str, words: list[str], threads: int) -> dict[str, float]:
    """What a command took, in a process of its own."""
    asked = [sys.executable, __file__, "--child", model, *words]
    own = {**os.environ, "BENCH_THREADS": str(threads)}
    done = subprocess.run(asked, capture_output=True, text=True, env=own, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stdout[-1_000:]}\n{done.stderr[-2_000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return
    args = settings(__doc__, rounds=1)
    model = shipped(quick=args.quick)
    real = model != "atlas"
    sizes = {"many": 60, "few": 40, "texts": 12} if real else {"many": 8, "few": 8, "texts": 8}
    rows: list[Row] = []
    times: dict[str, Times] = {}
    notes: list[str] = []
    with scratch_folder() as folder:
        for name, line in JOBS.items():
            if model == "atlas" and name.startswith("xmrc"):
                continue  # it reads 256 tokens at most
            said = line.format(model=model, **sizes)
            try:
                told = [
                    run(model, [*said.split(), "--out", str(Path(folder, f"{n} {name}"))], 1)
                    for n in range(args.rounds)
                ]
            except RuntimeError as error:  # the others' figures are not to be lost
                print(error, file=sys.stderr)
                notes.append(f"`xlens {said}` failed: not measured.")
                continue
            first = told[0]
            rows.append(
                Row(
                    f"`xlens {name}`, the whole command",
                    f"`{said}`",
                    FLOOR,
                    [each["cpu"] / (each["forward"] + each["head"]) for each in told],
                    "time",
                    TARGETS.get(name, "") if real else "",
                    f"{name}: {first['cpu']:.1f} CPU s, of them {first['forward']:.1f} of forward "
                    f"passes and {first['head']:.1f} of the head.",
                )
            )
            print(rows[-1].note, flush=True)
            cpu = dict(enumerate(each["cpu"] for each in told))
            times[name] = Times(cpu, dict(cpu))
    write("jobs", rows, args, times={"jobs": times}, notes=notes)


if __name__ == "__main__":
    main()
