"""A model loaded that was loaded before, against transformers' own loading of the same folder.

Gemma 3 270M, converted before, where the extra `gemma` is installed; else, or with --quick, the
atlas. Each load is in a process of its own, and the clock begins when everything is imported, the
model's own code among it. Peak is the process's resident memory at most, mapped files and
libraries among it.
"""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

from common import Times, settings, shipped
from tables import Row, write

THEIRS = "AutoModelForCausalLM and AutoTokenizer on the same folder"
_FAMILY = {"gemma-3-270m": "gemma3", "atlas": "llama"}


def loaded(who: str, name: str, folder: str) -> None:
    """What a child does: load, and print its CPU seconds and the peak of its memory in MB."""
    import torch
    from common import quiet
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import xlens

    family = _FAMILY[name]
    importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    quiet(1)
    began = time.process_time()
    if who == "xlens":
        kept: object = xlens.load(name, device="cpu", dtype=torch.float32)
    else:
        kept = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            AutoTokenizer.from_pretrained(folder),
        )
    seconds = time.process_time() - began
    status = Path("/proc/self/status").read_text()
    mb = int(status.split("VmHWM:")[1].split()[0]) / 1_024
    print(json.dumps({"seconds": seconds, "mb": mb, "kept": str(type(kept))}))


def folder_of(name: str) -> str:
    """Where the model lies; a model that was never loaded is converted and checked by that."""
    import xlens

    return str(xlens.load(name, device="cpu").config._name_or_path)


def child(*said: str) -> dict[str, float]:
    """What a load in a process of its own took."""
    asked = [sys.executable, __file__, "--child", *said]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        loaded(*sys.argv[2:5])
        return
    args = settings(__doc__, rounds=4)
    name = shipped(quick=args.quick)
    folder = folder_of(name)
    args.rounds = 1 if args.quick else args.rounds
    whos = ("xlens", THEIRS)
    took = {who: [child(who, name, folder)] for who in whos}  # fills the system's cache of files
    for n in range(args.rounds):
        for who in whos[:: 1 if n % 2 == 0 else -1]:
            took[who].append(child(who, name, folder))
    for each in took.values():
        each.pop(0)
    seconds = {who: [each["seconds"] for each in took[who]] for who in whos}
    mb = {who: [each["mb"] for each in took[who]] for who in whos}
    rows = [
        Row(
            "load, warm",
            name,
            THEIRS,
            [a / b for a, b in zip(seconds["xlens"], seconds[THEIRS], strict=True)],
            "time",
            "≤ 1.05",
            f"{name}: {min(seconds['xlens']):.2f} s, and {min(seconds[THEIRS]):.2f} s.",
        ),
        Row(
            "load, warm: peak memory of the process",
            name,
            THEIRS,
            [a / b for a, b in zip(mb["xlens"], mb[THEIRS], strict=True)],
            "memory over",
        ),
        # 1.1 GB.
        Row("load, warm: peak memory of the process", name, "", mb["xlens"], "memory above",
            "≤ 1126" if name != "atlas" else ""),
    ]  # fmt: skip
    times = {
        who: Times(dict(enumerate(seconds[who])), dict(enumerate(seconds[who]))) for who in whos
    }
    write("load", rows, args, times={name: times})


if __name__ == "__main__":
    main()
