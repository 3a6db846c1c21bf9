"""Every command in small, run in a process of its own that is forked: milliseconds to start."""

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import readings
import tiny_gguf

import tiny

FEW = ["--kinds", "weekday", "--n-items", "3", "--n-controls", "2", "--draws", "20"]
ASKED = ["--languages", "en", "de", "fr", "sw", "--n-items", "6", "--shots", "1", "--draws", "20"]
ASKED_8 = ["8" if word == "6" else word for word in ASKED]
STEERED = ["--steer", "mean_difference", "--layers", "1-2", "--strengths", "1"]
STEERED += ["--n-estimate", "6", "--n-dev", "3", "--n-test", "3"]
COUNTED = ["--cut", "line", "--window", "4", "--workers", "1", "--facts"]
ASIDE = ["--shots", "0", "--questions", "en,de", "ru", "--draws", "20"]
READ = ["--n-items", "4", "--n-controls", "2", "--shots", "0", "--max-new-tokens", "3"]
READ += ["--questions", "en,de", "ru", "--draws", "20"]
LOOKED = ["--n-phases", "4", "--relevance-rule", "gradient"]
LOOKED += ["--kinds", "readable", "patch_last_question", "patch_last_context"]
FACTS = ["--languages", "en", "de", "--relations", "capital", "continent", "--n-items", "6"]
FACTS += ["--shots", "1", "--n-candidates", "3", "--draws", "20"]
LEARNED = ["--from", "de", "--languages", "en", "de", "fr", "--kinds", "next-weekday", "next-month"]
LEARNED += ["--n-items", "6", "--no-inside", "--shots", "0", "--n-pairs", "4", "--epochs", "1"]
LEARNED += ["--batch", "2", "--accumulate", "1", "--learning-rate", "1e-2", "--draws", "20"]
SEEN_INSIDE = [word for word in LEARNED if word != "--no-inside"] + ["--n-inside", "8"]
SEEN_INSIDE[SEEN_INSIDE.index("--n-items") + 1] = "8"
LIKE = ["--layout", "aligned", "--draws", "20", "--twins", "words", "--n-twins", "1"]
UNITS = ["--least-tokens", "20", "--top", "0.05", "--filter-rate", "0.6", "--n-texts", "4"]
FITTED = ["--n-texts", "6", "--n-held", "2", "--max-tokens", "10", "--skip", "2", "--rotation", "2"]
FITTED += ["--n-steps", "5", "--positions", "2", "--draws", "20"]
# Dates stand in these, and what a machine or an earlier run told.
_OTHER = ("provenance.json", "journal.jsonl", "report.html", "lock", "lock.holder")


def corpus(folder: Path) -> Path:
    """Two files of a corpus, and facts and texts beside them: their folder."""
    inside = folder / "texts"
    inside.mkdir(parents=True)
    texts = [*tiny.TEXT.values(), "Paris is in France.", "In Lima, Peru."]
    for n in range(2):
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts[n:] * 40]
        (inside / f"{n}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = [("id", "relation", "language", "subject", "object")]
    rows += [("1", "capital", "en", "Paris", "France"), ("2", "capital", "en", "Lima", "Peru")]
    for n, tag in enumerate(("en", "de")):
        sentences = "; ".join(list(tiny.TEXT.values())[n::2]).split("; ")
        (folder / f"{tag}.txt").write_text("\n".join(sentences), encoding="utf-8")
    (folder / "parallel").mkdir()
    for tag in ("en", "de", "fr"):
        lines = [f"{tag} {n} {tiny.TEXT[tag][n : n + 30]}" for n in range(12)]
        (folder / "parallel" / f"{tag}.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "facts.tsv").write_text("\n".join(map("\t".join, rows)), encoding="utf-8")
    return folder


def checkpoints(folder: Path) -> Path:
    """A folder of three checkpoints of one training."""
    for step in range(3):
        tiny.make("gpt2", folder / f"step{step}", seed=step, n_positions=512)
    return folder


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
        texts: A folder with a corpus, a table of facts and texts in two languages.
        series: A folder of checkpoints.
    """

    model: Path
    data: Path
    prompts: Path
    gguf: Path
    texts: Path
    series: Path

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
        gguf = tiny_gguf.make(folder / "small.gguf")
        texts, series = corpus(folder / "corpus"), checkpoints(folder / "series")
        return cls(model, data, prompts, gguf, texts, series)

    def lines(self) -> dict[str, list[str]]:
        """Each command, less `--out`."""
        model, pair = str(self.model), ["--from", "ru", "--to", "zh-Hans"]
        texts = ["--text", *(f"{tag}={self.texts / tag}.txt" for tag in ("en", "de"))]
        return {
            "lens": ["lens", model, *pair, *FEW],
            "choices": ["choices", model, *ASKED],
            "process": ["process", model, *ASKED, *STEERED],
            "xmrc": ["xmrc", model, "--data", str(self.data), *READ],
            "phases": ["xmrc", model, "--data", str(self.data), *READ, "--phases", *LOOKED],
            "inside": ["phases", model, "--data", str(self.data), *ASIDE, *LOOKED],
            "facts": ["facts", model, *FACTS],
            "series": ["lens", str(self.series), "--revision", "all", *pair, *FEW],
            "count": ["count", str(self.texts / "texts"), *COUNTED, str(self.texts / "facts.tsv")],
            "align": ["align", model, *LEARNED],
            "aligned": ["align", model, *SEEN_INSIDE],
            "twins": ["twins", *(str(self.series / f"step{n}") for n in (0, 1)), *ASKED_8],
            "subspace": ["subspace", model, "--sentences", str(self.texts / "parallel"), *LIKE],
            "neurons": ["neurons", model, *texts, *UNITS, "--draws", "20"],
            "fit-lens": ["fit-lens", model, *texts, *FITTED],
            "steer": ["steer", model, "--languages", "en", "de", *STEERED],
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
    return {str(p.relative_to(place)): _settled(p) for p in kept if p.suffix != ".lock"}


def _settled(path: Path) -> bytes:
    """What is in a file, less how long a training took."""
    found = path.read_bytes()
    if path.name == "result.json" and b'"seconds"' in found:  # its digest, too, is another
        return re.sub(rb'"(seconds|sha256)": [^,\n]*', b"", found)
    return found
