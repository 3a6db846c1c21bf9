"""Every command in small, run in a process of its own that is forked: milliseconds to start."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import readings
import tiny_gguf

import tiny

FEW = ["--kinds", "weekday", "--n-items", "3", "--n-controls", "2", "--draws", "20"]
ASKED = ["--languages", "en", "de", "fr", "sw", "--n-items", "6", "--shots", "1", "--draws", "20"]
STEERED = ["--steer", "mean_difference", "--layers", "1-2", "--strengths", "1"]
STEERED += ["--n-estimate", "6", "--n-dev", "3", "--n-test", "3"]
READ = ["--n-items", "4", "--n-controls", "2", "--shots", "0", "--max-new-tokens", "3"]
READ += ["--questions", "en,de", "ru", "--draws", "20"]
INSIDE = ["--phases", "--n-phases", "4", "--relevance-rule", "gradient"]
INSIDE += ["--kinds", "readable", "patch_last_question", "patch_last_context"]
# Dates stand in these, and what a machine or an earlier run told.
_OTHER = ("provenance.json", "journal.jsonl", ".lock", ".index.json", "report.html")


def stories(folder: Path) -> Path:
    """A folder of reading questions."""
    folder.mkdir()
    for tag in ("en", "de", "ru"):
        text = json.dumps(readings.squad(tag), ensure_ascii=False)
        (folder / f"stories.{tag}.json").write_text(text, encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Ground:
    """What commands are given: a model and files.

    Attributes:
        model: A tiny checkpoint.
        data: A folder of reading questions.
        prompts: A file of prompts.
        gguf: A tiny model that is converted when it is first loaded.
    """

    model: Path
    data: Path
    prompts: Path
    gguf: Path

    @classmethod
    def make(cls, folder: Path) -> "Ground":
        model = tiny.make("gpt2", folder / "tiny-gpt2", n_positions=512, tie_word_embeddings=False)
        data = stories(folder / "stories")
        rows = [
            {"text": text[:40], "language": tag, "id": str(n)}
            for tag, text in tiny.TEXT.items()
            for n in range(2)
        ]
        prompts = folder / "prompts.jsonl"
        prompts.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return cls(model, data, prompts, tiny_gguf.make(folder / "small.gguf"))

    def lines(self) -> dict[str, list[str]]:
        """Each command, less `--out`."""
        model, pair = str(self.model), ["--from", "ru", "--to", "zh-Hans"]
        return {
            "lens": ["lens", model, *pair, *FEW],
            "choices": ["choices", model, *ASKED],
            "process": ["process", model, *ASKED, *STEERED],
            "xmrc": ["xmrc", model, "--data", str(self.data), *READ],
            "phases": ["xmrc", model, "--data", str(self.data), *READ, *INSIDE],
            "harvest": ["harvest", model, str(self.prompts)],
            "trace": ["trace", model, "Wo liegt Rom?"],
            "convert": ["trace", str(self.gguf), "Wo liegt Rom?"],
        }


def forked(work: Callable[[], object], said: Path) -> int:
    """Start a process that does `work` and writes what it says to a file; its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        work()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(line: Sequence[str], place: Path, around: Callable[[], object] | None = None) -> None:
    """`xlens LINE` in a folder of its own, with a store of its own; in a forked process."""
    from xlens.cli import main

    place.mkdir(parents=True, exist_ok=True)
    os.chdir(place)
    os.environ["XLENS_CACHE"] = str(place / "cache")
    if around is not None:
        around()
    main([*line, "--out", "out"])


def left(place: Path) -> dict[str, bytes]:
    """What must not depend on what happened meanwhile: results, figures, shards, conversions."""
    found = sorted(p for p in place.rglob("*") if p.is_file())
    kept = [p for p in found if p.name not in _OTHER and not p.name.startswith(".")]
    return {str(p.relative_to(place)): p.read_bytes() for p in kept if p.suffix != ".lock"}
