"""The command line, end to end on tiny checkpoints: what it writes, resumes, and refuses."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from pages import same_sentences

import tiny
import xlens
from xlens import Store, results
from xlens.cli import main
from xlens.consistency import ConsistencyResult
from xlens.lens import LensResult
from xlens.runs import RunDirectory
from xlens.studies.steps import latent_language

ROOT = Path(__file__).parent.parent
CONDITIONS = {"translation", "shuffled", "random-init", "repetition"}
FEW = ("--kinds", "weekday", "--n-items", "3", "--n-controls", "2")
BARE = (*FEW, "--controls")  # none
PAIRS = ("ru:zh-Hans", "de:ru")
ONE = ("--from", "ru", "--to", "zh-Hans")


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(autouse=True)
def own_store(tmp_path, monkeypatch):
    """A store of each test's own: no test is served what another one computed."""
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys) -> Run:
    def run(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    """Few-shot prompts fall apart into bytes here, so the context is longer than usual."""
    return tiny.make("gpt2", tmp_path_factory.mktemp("models") / "tiny-gpt2", n_positions=512)


@pytest.fixture(scope="module")
def gemma3(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-gemma3"
    return tiny.make("gemma3", folder, max_position_embeddings=512)


@pytest.fixture(scope="module")
def finished(gpt2, tmp_path_factory) -> Path:
    """A run of `xlens lens` on two pairs. Read it only."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLENS_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as end:
            main(["lens", str(gpt2), "--pairs", *PAIRS, *FEW, "--out", str(folder / "run")])
    assert not end.value.code
    return folder / "run"


@contextmanager
def tokens_seen() -> Iterator[list[int]]:
    """Sizes of everything that any tiny GPT-2 embeds meanwhile: what its forward passes cost."""
    seen: list[int] = []

    def count(module, args):
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == 800:
            seen.append(args[0].numel())

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


def at_load(model: Path) -> int:
    with tokens_seen() as seen:
        xlens.load(model, device="cpu")
    return sum(seen)


def tables(run: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(run)): p.read_bytes() for p in run.glob("results/**/*.parquet")}
    assert found
    return found


def readable(page: Path) -> str:
    text = re.sub(r"<(script|style).*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def assert_refused(done: Done, *said: str) -> None:
    """Exit code 2 and, after any progress bars, one short line that says `said`."""
    assert done.code == 2
    assert "Traceback" not in done.err
    error = done.err[done.err.index("xlens: error: ") :]
    assert error.endswith("\n") and error.count("\n") == 1
    assert len(error) < 500
    for text in said:
        assert text in error


# --- xlens lens ---


def test_the_run_directory(finished, gpt2):
    inside = {p.name for p in finished.iterdir()}
    assert inside == {
        *("config.yaml", "provenance.json", "results", "figures", "plotly.min.js", "report.html")
    }
    for pair in ("ru_zh-Hans", "de_ru"):
        folder = finished / "results" / "tiny-gpt2" / pair
        summaries = {f"summary-{name}" for name in CONDITIONS}
        assert {p.name for p in folder.iterdir()} == {*CONDITIONS, *summaries, "survival"}
        found = {name: LensResult.load(folder / name) for name in CONDITIONS}
        main_result = found["translation"]
        assert (main_result.source, main_result.target) == tuple(pair.split("_"))
        assert main_result.rows["id"].nunique() == 3
        assert found["random-init"].rows["id"].nunique() == 2
        assert main_result.provenance["weights"] == "float32 safetensors"
        survival = results.load(folder / "survival").to_frame()
        assert list(survival.columns) == ["pair", "reason", "n"]
        for kind in ("curves", "controls", "composition", "states"):
            assert (finished / "figures" / f"{pair}-{kind}.html").is_file()
            drawn = json.loads((finished / "figures" / f"{pair}-{kind}.json").read_text())
            assert drawn["data"]
    assert (finished / "figures" / "all-pairs.html").is_file()


def test_config_and_provenance(finished, gpt2):
    config = yaml.safe_load((finished / "config.yaml").read_text(encoding="utf-8"))
    assert set(config) == {"lens"}
    assert config["lens"]["model"] == str(gpt2)
    assert config["lens"]["pairs"] == list(PAIRS)
    assert config["lens"]["kinds"] == ["weekday"]
    assert (config["lens"]["n_items"], config["lens"]["seed"]) == (3, 0)
    assert "out" not in config["lens"]  # the same run can be made elsewhere
    provenance = json.loads((finished / "provenance.json").read_text(encoding="utf-8"))
    assert {"command", "versions", "platform", "started", "device", "words"} <= set(provenance)
    assert provenance["model"] == str(gpt2)
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["words"].startswith("CLDR")


def test_the_report_names_weights_controls_and_survivors(finished):
    text = readable(finished / "report.html")
    assert "tiny-gpt2" in text
    assert "Weights: float32 safetensors" in text
    for said in ("Russian → Chinese", "German → Russian", "shuffled words", "random weights"):
        assert said in text
    for heading in ("What was found", "Which words could be used", "How to reproduce this"):
        assert heading in text
    for label in ("Shuffled", "Random weights", "Repetition"):
        assert label.casefold() in text.casefold()
    assert "n_items: 3" in text
    assert 'src="plotly.min.js"' in (finished / "report.html").read_text(encoding="utf-8")


def test_one_pair_where_it_goes_and_again(run, gpt2, tmp_path):
    command = ("lens", gpt2, "--from", "ru", "--to", "zh-hans", *FEW)
    with tokens_seen() as first:
        done = run(*command)
    assert done.code == 0
    folder = tmp_path / "runs" / "lens-tiny-gpt2-ru_zh-Hans"
    assert f"Report: {folder / 'report.html'}" in done.out
    assert "[1/1] ru → zh-Hans" in done.out
    assert "2 prompts are too few for intervals" in done.out and "nan" not in done.out
    same_sentences(folder / "report.html", done.out)
    assert not (folder / "figures" / "all-pairs.html").exists()
    assert sum(first) - at_load(gpt2) > 1_000  # the words themselves, not the checks at load

    # The same command again: served from what was saved, to the byte.
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    # No store is there where the hook that counts keeps the run away from it.
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    with tokens_seen() as second:
        assert run(*command).code == 0
    assert sum(second) == 0  # the model isn't even loaded
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert after == before  # report.html among them


def test_a_run_killed_between_pairs_goes_on(run, gpt2, finished, monkeypatch):
    command = ("lens", gpt2, "--pairs", *PAIRS, *FEW, "--out", "killed")
    real = latent_language._steps

    def killed(model, twin, words, source, *rest):
        if source == "de":
            raise KeyboardInterrupt
        return real(model, twin, words, source, *rest)

    monkeypatch.setattr(latent_language, "_steps", killed)
    done = run(*command)
    assert done.code == 130
    assert "goes on where it was" in done.err and "Traceback" not in done.err
    assert not Path("killed/report.html").exists()
    monkeypatch.setattr(latent_language, "_steps", real)
    shutil.rmtree("cache")
    done = Path("killed/results/tiny-gpt2/ru_zh-Hans").rglob("*.parquet")
    first = {p: p.stat().st_mtime_ns for p in done}
    assert run(*command).code == 0
    assert first and all(p.stat().st_mtime_ns == time for p, time in first.items())
    assert tables(Path("killed")) == tables(finished)
    assert (
        readable(Path("killed/report.html")).split("How to reproduce")[0].split("Run started")[0]
        == (readable(finished / "report.html").split("How to reproduce")[0].split("Run started")[0])
    )


def test_the_written_config_makes_the_same_run(run, finished):
    done = run("--config", finished / "config.yaml", "lens", "--out", "replay")
    assert done.code == 0
    assert tables(Path("replay")) == tables(finished)
    assert Path("replay/config.yaml").read_bytes() == (finished / "config.yaml").read_bytes()
    # An option on the line wins over the file's.
    options = ("--pairs", "de:ru", "--n-items", "2", "--controls", "shuffled")
    assert run("--config", finished / "config.yaml", "lens", *options, "--out", "less").code == 0
    config = yaml.safe_load(Path("less/config.yaml").read_text(encoding="utf-8"))["lens"]
    assert (config["pairs"], config["n_items"], config["seed"]) == (["de:ru"], 2, 0)
    assert set(p.name for p in Path("less/results/tiny-gpt2/de_ru").iterdir()) == {
        *("translation", "shuffled", "survival", "summary-translation", "summary-shuffled")
    }


def test_a_config_does_not_outlive_its_command(run, finished, gpt2):
    assert run("--config", finished / "config.yaml", "lens", "--seed", "x").code == 2
    done = run("lens", gpt2)  # else it would take its pairs from the last one's file
    assert_refused(done, "Give either --from and --to, or --pairs")


def test_overwrite_deletes_the_other_run(run, gpt2):
    command = ("lens", gpt2, *ONE, *BARE, "--out", "over")
    assert run(*command).code == 0
    assert run(*command, "--seed", "1").code == 2
    assert run(*command, "--seed", "1", "--overwrite").code == 0
    assert yaml.safe_load(Path("over/config.yaml").read_text())["lens"]["seed"] == 1


def test_a_start_that_failed_is_no_other_run(run, gpt2):
    command = ("lens", gpt2, *ONE, *BARE, "--out", "mended")
    assert run(*command, "--top-k", "801").code == 2
    assert run(*command, "--top-k", "4").code == 0


def test_other_weights_in_the_same_folder_are_not_served_old_results(run, tmp_path):
    model = tiny.make("gpt2", tmp_path / "model", n_positions=512)
    command = ("lens", model, *ONE, *BARE, "--out", "trained")
    assert run(*command).code == 0
    tiny.make("gpt2", model, n_positions=512, seed=1)
    done = run(*command)
    assert_refused(done, "trained", "model", "changed")
    assert run(*command, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--match", "first", "--controls"), {"translation"}),
        (("--match", "whole", "--controls", "shuffled"), {"translation", "shuffled"}),
        (("--task", "repetition"), {"repetition", "shuffled", "random-init"}),
        (("--collisions", "subtract", "--controls", "repetition"), {"translation", "repetition"}),
    ],
    ids=["first", "whole", "repetition", "subtract"],
)
def test_readings_and_tasks(run, gpt2, options, expected):
    done = run("lens", gpt2, *ONE, *FEW, *options, "--out", "r")
    assert done.code == 0
    parts = RunDirectory.open("r").parts("tiny-gpt2")
    saved = {n.split("/")[1]: p for n, p in parts.items() if isinstance(p, LensResult)}
    assert set(saved) == expected
    first = saved.get("translation") or saved["repetition"]
    asked = dict(zip(options[::2], options[1::2], strict=False))
    assert first.match == asked.get("--match", "prefixes")
    assert first.task == asked.get("--task", "translation")
    assert Path("r/report.html").is_file()


def test_cloze(run, gpt2):
    few = ("--kinds", "month", "weekday", "--n-items", "3", "--controls", "shuffled")
    done = run("lens", gpt2, *ONE, "--task", "cloze", *few, "--out", "c")
    assert done.code == 0
    result = LensResult.load("c/results/tiny-gpt2/ru_zh-Hans/cloze")
    assert (result.task, result.source, result.target) == ("cloze", "zh-Hans", "zh-Hans")
    assert "task: cloze" in readable(Path("c/report.html"))


WORDS = """id\ten\tde\tru
dog\tdog\tHund\tсобака
day\tday\tTag\tдень
water\twater\tWasser\tвода
tree\ttree\tBaum\tдерево
house\thouse\tHaus\tдом
book\tbook\tBuch\tкнига
sun\tsun\tSonne\tсолнце
"""


def test_own_words(run, gpt2):
    Path("words.tsv").write_text(WORDS, encoding="utf-8")
    few = ("--n-items", "4", "--n-controls", "2")
    command = ("lens", gpt2, "--from", "de", "--to", "ru", "--words", "words.tsv", *few)
    assert run(*command, "--out", "own").code == 0
    result = LensResult.load("own/results/tiny-gpt2/de_ru/translation")
    assert set(result.rows["id"]) < {line.split("\t")[0] for line in WORDS.splitlines()[1:]}
    assert "words.tsv" in json.loads(Path("own/provenance.json").read_text())["words"]
    # The same command after an edit asks for something else.
    Path("words.tsv").write_text(WORDS.replace("Buch", "Band"), encoding="utf-8")
    assert_refused(run(*command, "--out", "own"), "own", "words", "changed")


def test_pairs_without_words_are_listed_and_the_others_read(run, gpt2):
    rows = [f"{line}\t" for line in WORDS.splitlines()[1:]]
    Path("words.tsv").write_text("id\ten\tde\tru\tfr\n" + "\n".join(rows) + "\n", "utf-8")
    few = ("--n-items", "4", "--n-controls", "2", "--missing", "keep", "--words", "words.tsv")
    done = run("lens", gpt2, "--pairs", "de:fr", "de:ru", "fr:ru", *few, "--out", "own")
    assert done.code == 0, done.err
    parts = RunDirectory.open("own").parts("tiny-gpt2")
    assert {name.rpartition("/")[0] for name in parts} == {"", "de_ru"}
    assert parts["left-out"].to_frame()["what"].tolist() == ["de_fr", "fr_ru"]
    page = Path("own/report.html").read_text("utf-8")
    assert "Which pairs could not be asked" in page
    for said in ("de → fr is left out: ", "fr → ru is left out: "):
        assert said in done.out.split("\nWhat was found\n")[1] and said in page
    same_sentences(Path("own/report.html"), done.out)
    # Asked for alone, or with nothing else that can be asked, it is an error.
    assert_refused(
        run("lens", gpt2, "--pairs", "de:fr", "ru:fr", *few, "--out", "none"), "0 have a word in fr"
    )


# --- the other commands ---


def test_demo_on_a_tiny_gemma(run, gemma3, monkeypatch):
    few = ("--kinds", "weekday", "--n-items", "2", "--n-controls", "2", "--controls", "shuffled")
    done = run("demo", "--model", gemma3, *few)
    assert done.code == 0
    page = Path("runs/demo/report.html").resolve()
    assert done.out.rstrip().endswith(f"Report: {page}")
    assert {p.name for p in Path("runs/demo/results/tiny-gemma3").iterdir() if p.is_dir()} == {
        *("fr_zh-Hans", "de_ru", "ru_zh-Hans", "zh-Hans_fr")
    }
    assert Path("runs/demo/figures/all-pairs.html").is_file()
    config = yaml.safe_load(Path("runs/demo/config.yaml").read_text(encoding="utf-8"))
    assert set(config) == {"demo"}
    # Its config is one of `demo`: replayed elsewhere, every option of it is known.
    one = ("--pairs", "ru:zh-Hans")
    assert run("--config", "runs/demo/config.yaml", "demo", *one, "--out", "one").code == 0
    path = "results/tiny-gemma3/ru_zh-Hans/translation/rows.parquet"
    assert pd.read_parquet(Path("runs/demo", path)).equals(pd.read_parquet(Path("one", path)))


def test_trace_prints_the_table(run, gpt2):
    text = 'Deutsch: "Wasser" - Русский: "'
    done = run("trace", gpt2, text, "--last", "5", "--out", "figures")
    assert done.code == 0
    lines = done.out.splitlines()
    model = xlens.load(gpt2, device="cpu")
    # From the last layer down to the embedding, then a rule and the prompt's own tokens.
    assert [line.split()[0] for line in lines[:-3]] == ["3", "2", "1", "0"]
    assert lines[-2].startswith("layer")
    result = xlens.trace(model, text).last(5)
    final = result.cells[result.cells["layer"] == 3]["label"]
    assert all(label[:7] in lines[0] for label in final)  # long ones are cut
    assert all(label[:7] in lines[-2] for label in result.tokens["label"])
    assert lines[-1] == "figures/trace.html"
    assert Path("figures/trace.json").is_file()


def test_harvest_then_load(run, gpt2):
    rows = [
        {"text": "Der Hund schläft.", "language": "de", "id": "1", "spans": {"word": [4, 8]}},
        {"text": "狗在睡觉。", "language": "zh-Hans", "id": "1", "spans": {"word": [0, 1]}},
    ]
    Path("p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    slots = ("--slots", "last", "word:mean")
    done = run("harvest", gpt2, "p.jsonl", "--layers", "0", "3", *slots, "--out", "acts")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "acts"
    kept = xlens.Activations.load("acts")
    assert kept.layers == (0, 3) and set(kept.slots) == {"last", "word:mean"}
    assert list(kept.meta["language"]) == ["de", "zh-Hans"]
    model = xlens.load(gpt2, device="cpu")
    prompts = xlens.read_prompts("p.jsonl")
    own = xlens.harvest(model, prompts, layers=[0, 3], slots=["last", "word:mean"], progress=False)
    for slot in own.slots:
        torch.testing.assert_close(kept.get(slot), own.get(slot))


def test_a_harvest_is_served_from_the_store(run, gpt2, monkeypatch, tmp_path):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    Path("q.jsonl").write_text('{"text": "Ein Hund.", "language": "de", "id": "1"}')
    command = ("harvest", gpt2, "q.jsonl", "--out")
    assert run(*command, "none", "--no-store").code == 0
    assert Store().entries() == []
    assert run(*command, "first").code == 0
    (entry,) = Store().entries()
    assert entry.complete
    monkeypatch.setattr(importlib.import_module("xlens.engine.harvest"), "states", None)
    assert run(*command, "second").code == 0  # nothing runs
    assert [e.id for e in Store().entries()] == [entry.id]
    files = sorted(p.name for p in Path("first").iterdir())
    assert files == sorted(p.name for p in Path("second").iterdir())


def test_report_from_saved_results(run, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "figures")
    done = run("report", copy)
    assert (done.code, done.out.strip()) == (0, str(copy / "report.html"))
    for path in (p for p in finished.rglob("*") if p.is_file()):
        assert (copy / path.relative_to(finished)).read_bytes() == path.read_bytes()


def test_choices_into_a_report(run, gpt2, monkeypatch, tmp_path):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    rows = [
        {
            "id": f"q{n}",
            "language": tag,
            "question": question.format(n),
            "options": options,
            "gold": n % 3,
        }
        for n in range(12)
        for tag, question, options in (
            ("en", "Number {}?", ["cat", "dog", "book"]),
            ("de", "Nummer {}?", ["Katze", "Hund", "Buch"]),
            ("ar", "الرقم {}؟", ["قطة", "كلب", "كتاب"]),
        )
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    Path("items.jsonl").write_text(text, encoding="utf-8")
    command = ("choices", gpt2, "--items", "items.jsonl", "--n-items", "8", "--out", "asked")
    done = run(*command)
    assert done.code == 0, done.err
    assert "chance is 0.33" in done.out and done.out.strip().endswith("report.html")
    saved = ConsistencyResult.load("asked/results/tiny-gpt2/items/consistency")
    assert list(saved.languages["language"]) == ["en", "de", "ar"]
    assert set(saved.languages["n"]) == {8}
    same_sentences(Path("asked/report.html"), done.out)
    page = Path("asked/report.html").read_text(encoding="utf-8")
    assert page.count("data-figure=") == 5 and "permuted items" in page and "n_items: 8" in page
    monkeypatch.setattr("xlens.tasks.choices.score_choices", None)
    before = {p: p.read_bytes() for p in Path("asked").rglob("*") if p.is_file()}
    assert run(*command).code == 0  # nothing runs again
    assert run("report", "asked").code == 0
    assert {p: p.read_bytes() for p in before} == before
    assert_refused(run(*command[:-4], "--n-items", "9", "--out", "asked"), "choices.n_items")
    assert_refused(run("choices", NO_MODEL), "--languages en de")
    assert_refused(run("choices", NO_MODEL, "--languages", "en"), "en")
    assert_refused(run("choices", NO_MODEL, "--items", "none.jsonl"), "none.jsonl")


def test_models_lists_what_comes_by_name(run):
    done = run("models")
    assert done.code == 0
    for said in ("gemma-3-270m", "Gemma Terms of Use", "smollm2", "Apache-2.0", "atlas-post"):
        assert said in done.out


def test_in_a_process_of_its_own(gpt2, tmp_path):
    def xlens_command(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "xlens", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)

    out = tmp_path / "run"
    done = xlens_command("lens", str(gpt2), *ONE, *BARE, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr and "Traceback" not in done.stderr
    provenance = json.loads((out / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["command"].startswith(f"python -m xlens lens {gpt2} --from ru")
    done = xlens_command("lens", str(gpt2), "--from", "english", "--n-items", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("xlens: error: ") and done.stderr.count("\n") == 1


# --- bad input: one line, before any work ---

NO_MODEL = "this/model-is-never-loaded"
BASE = ("lens", NO_MODEL, "--from", "de", "--to", "ru")
LENS = (*BASE, "--kinds", "weekday")


@pytest.fixture
def never_loaded(monkeypatch):
    def load(*_args, **_options):
        pytest.fail("the model was loaded before the input was checked")

    monkeypatch.setattr("xlens.studies.loading.Loading.load", load)


@pytest.mark.usefixtures("never_loaded")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        # commands and options
        (("nosuch",), ("nosuch", "choices, demo, facts, fit-lens, lens")),
        (("lens",), ("--model",)),
        ((*LENS, "--nitems", "5"), ("--nitems", "--n-items")),
        ((*LENS, "--n-items", "many"), ("--n-items", "'many'|\"many\"", "int")),
        ((*LENS, "--match", "aloud"), ("aloud", "prefixes", "first", "whole")),
        ((*LENS, "--task", "dictation"), ("dictation", "translation", "cloze")),
        ((*LENS, "--dtype", "int8"), ("int8", "float32", "bfloat16")),
        # languages and pairs
        (("lens", NO_MODEL, "--from", "english", "--to", "ru"), ("'english'", "BCP-47", "'en'")),
        (("lens", NO_MODEL, "--from", "de", "--to", "xx"), ("'xx'", "BCP-47")),
        ((*LENS, "--pivot", "Latin"), ("'Latin'", "'la'")),
        (("lens", NO_MODEL, "--pairs", "de:ru", "deru"), ("'deru'", "SOURCE:TARGET", "fr:zh")),
        (("lens", NO_MODEL, "--pairs", "de:ru:fr"), ("'de:ru:fr'", "SOURCE:TARGET")),
        (("lens", NO_MODEL, "--pairs", ":ru"), ("':ru'", "SOURCE:TARGET")),
        (
            ("lens", NO_MODEL, "--kinds", "weekday", "--pairs", "ru:de", "de:de"),
            ("source and target", "'de'", "two"),
        ),
        (("lens", NO_MODEL, "--from", "de", "--to", "en"), ("'en'", "pivot", "another target")),
        ((*LENS, "--pivot", "ru"), ("'ru'", "pivot")),
        (("lens", NO_MODEL, "--from", "de"), ("--from and --to", "--pairs", "got --from")),
        (("lens", NO_MODEL, "--to", "de"), ("--from and --to", "--pairs", "got --to")),
        (("lens", NO_MODEL), ("--from and --to", "--pairs", "none")),
        ((*LENS, "--pairs", "de:ru"), ("either", "--from and --to and --pairs")),
        (("lens", NO_MODEL, "--from", "de", "--to", "tlh"), ("'tlh'", "CLDR", "no data")),
        # what is asked
        ((*BASE, "--kinds", "month", "animal"), ("'animal'", "territory", "unit")),
        ((*LENS, "--controls", "placebo"), ("'placebo'", "shuffled", "random-init")),
        ((*LENS, "--n-items", "1"), ("n_items is 1", "at least 2")),
        ((*LENS, "--n-controls", "0"), ("n_controls 0", "at least 2")),
        ((*LENS, "--top-k", "0"), ("top_k is 0", "1 or more")),
        ((*LENS, "--shots", "-1"), ("shots -1", "0 or more")),
        ((*LENS, "--shots", "7"), ("7 demonstrations", "6 candidates")),
        ((*LENS, "--static", "gif"), ("'gif'", "png, svg, pdf")),
        ((*BASE, "--task", "cloze", "--kinds", "unit"), ("no items for", "cldr_words")),
        # word lists
        ((*BASE, "--words", "nosuch.tsv"), ("'nosuch.tsv'", "No such file", "word list")),
        ((*BASE, "--words", "words.docx"), ("'words.docx'", ".tsv", ".jsonl")),
        ((*BASE, "--words", "twice.tsv"), ("'twice.tsv'", "line 4", "line 2", "'dog'")),
        ((*BASE, "--words", "gap.tsv"), ("'gap.tsv'", "line 3", "'ru'", "Fill it in")),
        ((*BASE, "--words", "cp1252.csv"), ("'cp1252.csv'", "utf-8", "cp1252")),
        ((*BASE, "--words", "column.csv"), ("'German word'", "language")),
        ((*BASE, "--words", "no_ru.tsv"), ("'ru'", "en, de")),
        ((*BASE, "--words", "empty.csv"), ("'empty.csv'", "empty")),
        ((*BASE, "--words", "few.tsv"), ("4 demonstrations", "2 candidates")),
        ((*BASE, "--words", "quote.tsv"), ("'dog'", "double quote")),
        ((*BASE, "--words", "good.tsv", "--kinds", "animal"), ("'animal'", "'word'")),
        # where to write
        ((*LENS, "--out", "file.txt"), ("'file.txt'", "file", "folder")),
        ((*LENS, "--out", "file.txt/below"), ("file.txt", "file", "folder")),
        ((*LENS, "--out", "full"), ("'full'", "thesis.tex", "empty folder")),
        # prompts
        (("harvest", NO_MODEL, "nosuch.jsonl"), ("'nosuch.jsonl'", "JSON Lines")),
        (("harvest", NO_MODEL, "broken.jsonl"), ("'broken.jsonl'", "line 2")),
        (("harvest", NO_MODEL, "no_text.jsonl"), ("'no_text.jsonl'", "line 1", '"text"')),
        (
            ("harvest", NO_MODEL, "key.jsonl"),
            ("'key.jsonl'", "line 1", "'span'", "'spans'"),
        ),
        (("harvest", NO_MODEL, "tag.jsonl"), ("'tag.jsonl'", "line 1", "'german'", "'de'")),
        (("harvest", NO_MODEL, "blank.jsonl"), ("'blank.jsonl'", "line 1", "empty text")),
        (("harvest", NO_MODEL, "span.jsonl"), ("'span.jsonl'", "line 1", "'word'", "[9, 99)")),
        (("harvest", NO_MODEL, "same.jsonl"), ("'1'", "'de'", "different ids")),
        (("harvest", NO_MODEL, "latin.jsonl"), ("'latin.jsonl'", "UTF-8")),
        (("harvest", NO_MODEL, "empty.jsonl"), ("'empty.jsonl'", "is empty", "a file of prompts")),
        (("harvest", NO_MODEL, "p.jsonl", "--slots", "end"), ("'end'", "'last'", "'all'", "NAME")),
        (("harvest", NO_MODEL, "p.jsonl", "--slots", "w:middle"), ("'w:middle'", "first|last")),
        (("harvest", NO_MODEL, "p.jsonl", "--token-budget", "0"), ("token_budget", "at least 1")),
        (("harvest", NO_MODEL, "p.jsonl", "--layers", "top"), ("--layers", "top", "int")),
        (("harvest", NO_MODEL, "p.jsonl", "--out", "file.txt"), ("'file.txt'", "folder")),
        (("trace", NO_MODEL, ""), ("empty text", "at least one character")),
        (("trace", NO_MODEL, "Tag", "--last", "0"), ("--last is 0", "1 or more")),
        (("trace", NO_MODEL, "Tag", "--out", "file.txt"), ("'file.txt'", "folder")),
        # --config
        (("--config", "nosuch.yaml", "lens"), ("'nosuch.yaml'", "YAML")),
        (("--config", "option.yaml", "lens"), ("nitems", "option.yaml", "--n-items")),
        (("--config", "command.yaml", "lens"), ("'lense'", "facts, fit-lens, lens")),
        (("--config", "list.yaml", "lens"), ("'list.yaml'", "no options", "command's name")),
        (("--config", "broken.yaml", "lens"), ("'broken.yaml'", "YAML", "line 1")),
        (("--config", "latin.yaml", "lens"), ("'latin.yaml'", "UTF-8")),
        (("--config", "option.yaml", "demo"), ("'option.yaml'", "for lens", "'demo'")),
        # runs
        (("report", "nosuch"), ("'nosuch'", "no such folder", "config.yaml")),
        (("report", "full"), ("'full'", "no run directory", "config.yaml")),
        (("report", "done"), ("'done'", "no results yet")),
    ],
)
def test_bad_input(run, bad_files, command, said):
    done = run(*command)
    assert done.out == ""
    assert done.err.startswith("xlens: error: ")
    assert_refused(done)
    for choices in said:
        assert any(text in done.err for text in choices.split("|")), done.err


@pytest.fixture
def bad_files(tmp_path) -> Path:
    """A working folder with files of every sort but the right one."""

    def rows(*lines: object) -> str:
        return "".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines)

    prompt = {"text": "Wo liegt Rom?", "language": "de", "id": "1"}
    head = "\n".join(WORDS.splitlines()[:3]) + "\n"
    files: dict[str, str | bytes] = {
        "good.tsv": WORDS,
        "words.docx": WORDS,
        "twice.tsv": head + "dog\tdog\tHund\tпёс\n",
        "gap.tsv": WORDS.replace("день", ""),
        "cp1252.csv": "en,de,ru\ntree,Bäume,x\n".encode("cp1252"),
        "column.csv": "en,German word\ndog,Hund\n",
        "no_ru.tsv": "en\tde\ndog\tHund\n",
        "empty.csv": "",
        "few.tsv": head + "water\twater\tWasser\tвода\n",
        "quote.tsv": WORDS.replace("Hund", 'Hu"nd'),
        "file.txt": "a file in the way",
        "full/thesis.tex": "years of work",
        "p.jsonl": rows(prompt),
        "broken.jsonl": rows(prompt, "{"),
        "no_text.jsonl": rows({"language": "de"}),
        "key.jsonl": rows({**prompt, "span": {}}),
        "tag.jsonl": rows({**prompt, "language": "german"}),
        "blank.jsonl": rows({**prompt, "text": ""}),
        "span.jsonl": rows({**prompt, "spans": {"word": [9, 99]}}),
        "same.jsonl": rows(prompt, prompt),
        "latin.jsonl": '{"text": "fünf", "language": "de"}'.encode("latin-1"),
        "empty.jsonl": "\n\n",
        "option.yaml": "lens:\n  model: m\n  from: de\n  to: ru\n  nitems: 5\n",
        "command.yaml": "lense:\n  model: m\n",
        "list.yaml": "- lens\n- model\n",
        "broken.yaml": "lens: [1, 2",
        "latin.yaml": "lens: {model: fünf}".encode("latin-1"),
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    config = {"lens": {"model": "another"}}
    done = RunDirectory.create(tmp_path / "done", config, {"command": "xlens lens another"})
    assert done.path.is_dir()
    return tmp_path


def test_another_run_is_not_mixed_with_this_one(run, finished, never_loaded, tmp_path):
    """A run with results is left alone; one that never got so far is not in the way."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    assert_refused(run(*LENS, "--out", "copy"), "'copy'", "another config", "overwrite")
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("full", ("'full'", "no checkpoint", "thesis.tex", "config.json")),
        ("file.txt", ("'file.txt'", "GGUF", "folder")),
        ("no/such/model.gguf", ("'no/such/model.gguf'", "no file or folder")),
        ("./nosuch", ("'./nosuch'", "no file or folder", "hub id")),
        ("no such model", ("'no such model'", "neither", "hub id")),
        ("", ("empty", "xlens models")),
        ("cut", ("cut", "damaged|whole|incomplete|cut short")),
        ("half", ("half", "no weights")),
    ],
)
@pytest.mark.parametrize("command", ["lens", "trace"])
def test_what_is_no_model(run, bad_files, gpt2, source, said, command):
    shutil.copytree(gpt2, "cut")
    weights = Path("cut/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    shutil.copytree(gpt2, "half")
    Path("half/model.safetensors").unlink()
    rest = ("Tag",) if command == "trace" else ("--from", "de", "--to", "ru", *FEW)
    done = run(command, source, *rest)
    assert_refused(done)
    for choices in said:
        assert any(text in done.err for text in choices.split("|")), done.err


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that refuses even root")
@pytest.mark.usefixtures("never_loaded")
@pytest.mark.parametrize("command", [LENS, ("harvest", NO_MODEL, "p.jsonl")])
def test_an_unwritable_folder(run, bad_files, command):
    assert_refused(run(*command, "--out", "/proc/xlens/run"), "/proc/xlens/run", "write", "folder")


def test_a_revision_is_for_hub_ids(run, gpt2):
    done = run("lens", gpt2, *ONE, *FEW, "--revision", "main")
    assert_refused(done, "'main'", "only models on a hub have revisions")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--layers", "0", "4"), ("4", "0", "3")),
        (("--layers", "-5"), ("-5",)),
        (("--slots", "city:last"), ("'city'", "'1'")),
        (("--prepend-bos",), ("BOS",)),
    ],
)
def test_what_only_the_model_can_tell(run, gpt2, bad_files, options, said):
    """Loaded, but not run."""
    model = Path(shutil.copytree(gpt2, "without-bos"))
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["bos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    loading = at_load(model)
    with tokens_seen() as seen:
        done = run("harvest", model, "p.jsonl", *options)
    assert_refused(done, *said)
    assert sum(seen) == loading


def test_a_prompt_longer_than_the_context(run, gpt2):
    loading = at_load(gpt2)
    with tokens_seen() as seen:
        done = run("trace", gpt2, "Tag " * 400)
    assert_refused(done, "tokens", "512", "Shorten")
    assert sum(seen) == loading
    tight = ("--from", "hi", "--to", "ru", "--shots", "20", "--controls")
    with tokens_seen() as seen:
        done = run("lens", gpt2, *tight, "--kinds", "unit", "--n-items", "2")
    assert_refused(done, "tokens", "512", "fewer demonstrations")
    assert sum(seen) == loading
