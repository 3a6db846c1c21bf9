"""The protocol: one runner for all studies; nothing stale, nothing hand-copied, nothing to edit."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pandas as pd
import pytest
import readings
import yaml
from pages import same_sentences

import tiny
import xlens
from xlens import files, results
from xlens.cli import app, main
from xlens.report.build import PLAIN, page_of
from xlens.runs import RunDirectory
from xlens.studies import LensStudy, Loading, Study, find_studies
from xlens.studies.running.kept import MadeFrom
from xlens.studies.serving import Serving

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("as_users_have_it")
STUDIES = find_studies()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny.make("gpt2", tmp_path_factory.mktemp("models") / "tiny-gpt2", n_positions=512)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("XLENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": str(n), "language": tag, "question": f"{tag} which {n}?", "gold": n % 2}
        | {"options": [f"{tag} yes {n}", f"{tag} no {n}"]}
        for n in range(14)
        for tag in ("en", "de", "ru")
    ]
    Path("items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = [{"id": str(n), **{t: f"{t}{n}" for t in ("en", "de", "ru")}} for n in range(9)]
    Path("words.jsonl").write_text("\n".join(map(json.dumps, words)))
    facts = [
        {"id": f"f{n}", "language": tag, "relation": "king", "subject": f"{tag} land {n}"}
        | {"object": f"{tag} king {n}", "template": f"{tag} king of <subject>: <mask>"}
        for n in range(9)
        for tag in ("en", "de", "ru")
    ]
    Path("facts.jsonl").write_text("\n".join(map(json.dumps, facts)))
    words = ["river", "moon", "town", "harbour", "stone", "wall", "gate", "house", "road", "cat"]
    texts = [
        {"text": " ".join(words[(i + j * (i + 1)) % 10] for j in range(16)), "language": tag}
        for i in range(20)
        for tag in ("en", "de")
    ]
    sentences = [
        {"id": str(i), "language": tag, "text": f"{text['text']} {tag} {i}", "document": str(i % 9)}
        for i, text in enumerate(texts[::2])
        for tag in ("en", "de", "sr-Latn", "sr-Cyrl", "bs-Latn", "bs-Cyrl")
    ]
    Path("sentences.jsonl").write_text("\n".join(map(json.dumps, sentences)))
    families = {str(row["language"]): "family" for row in sentences}
    said = "".join(f"{tag}\t{name}\n" for tag, name in families.items())
    Path("families.tsv").write_text(f"language\tfamily\n{said}")
    Path("texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    for tag in ("en", "de"):
        mine = [text["text"] for text in texts if text["language"] == tag]
        Path(f"{tag}.txt").write_text("\n".join(mine))
    Path("stories").mkdir()
    for tag in ("en", "de"):
        text = json.dumps(readings.squad(tag), ensure_ascii=False)
        Path(f"stories/stories.{tag}.json").write_text(text, encoding="utf-8")


_STEER = {"n_estimate": 5, "n_dev": 2, "n_test": 2, "n_controls": 1, "n_outputs": 0}
_STEER |= {"layers": (1,), "strengths": (1.0,), "shots": 0}
SMALL = {
    "lens": {"pairs": ("de:ru",), "words": Path("words.jsonl"), "n_items": 4, "controls": ()},
    "choices": {"items": ("items.jsonl",), "n_items": 8, "shots": 1},
    "process": {"items": ("items.jsonl",), "n_items": 8, **_STEER, "steer": ("mean_difference",)},
    "steer": {"items": ("items.jsonl",), **_STEER},
    "xmrc": {"data": "stories", "n_items": 4, "n_controls": 2, "shots": 0, "max_new_tokens": 3},
}
SMALL["phases"] = {"data": "stories", "n_phases": 4, "shots": 0, "phase_languages": ("en",)}
SMALL["phases"] |= {"kinds": ("readable", "ablate_context"), "relevance_rule": "gradient"}
SMALL["facts"] = {"facts": "facts.jsonl", "n_items": 6, "shots": 1, "n_candidates": 3}
SMALL["fit-lens"] = {"text": ("texts.jsonl",), "n_texts": 10, "n_held": 3, "max_tokens": 12}
SMALL["fit-lens"] |= {"skip": 2, "rotation": 5, "n_steps": 2, "positions": 2}
SMALL["align"] = {"source": ("de",), "questions": "cldr", "items": ("items.jsonl",), "shots": 0}
SMALL["align"] |= {"n_items": 8, "n_pairs": 4, "epochs": 1, "cutoff": 200, "inside": False}
SMALL["neurons"] = {"text": ("en=en.txt", "de=de.txt"), "least_tokens": 10, "n_texts": 3}
SMALL["neurons"] |= {"top": 0.1}
SMALL["subspace"] = {"sentences": "sentences.jsonl", "layout": "tsv", "n_items": 12, "draws": 60}
SMALL["subspace"] |= {"n_twins": 1}
SMALL["twins"] = {"items": ("items.jsonl",), "n_items": 8, "shots": 1}
SMALL["demo"] = SMALL["lens"]
# Another value of every field there is: a new one is to be added here.
OTHERS = {
    "draws": 50, "confidence": 0.8, "clusters": "id", "seed": 1, "n_items": 7, "shots": 2,
    "by": "char_logprob", "labels": "english", "kinds": ("x",), "languages": ("en", "de"),
    "split": "val", "items": ("others.jsonl",), "layout": "xcopa", "identical": "drop",
    "pairs": ("ru:de",), "words": Path("others.jsonl"), "columns": ("en", "de"),
    "repeats": "first", "missing": "keep", "pivot": "de", "task": "repetition",
    "match": "first", "n_controls": 3, "controls": ("shuffled",), "top_k": 3,
    "collisions": "subtract", "lens": ("logit", "jacobian"), "names": {"de": "Teutsch"},
    "steer": ("lda",),
    "steer_languages": ("ru",), "layers": (2,), "strengths": (2.0,),
    "removal_strengths": (0.5,), "slot": "last", "n_estimate": 6, "n_dev": 3, "n_test": 3,
    "n_outputs": 1, "max_new_tokens": 4, "pooling": "mean", "n_latent": 6,
    "data": "elsewhere", "faulty": "drop", "pair": ("a:b",), "settings": ("en-en",),
    "context": ("de",), "questions": ("de",), "answers": ("de",), "per_paragraph": 2,
    "instruction": "none", "template": {"answer": "A:"}, "chat": "no", "too_long": "skip",
    "normalisation": "squad", "oracle": True, "phases": True, "n_phases": 6,
    "facts": "cldr", "relations": ("king",), "leaks": True, "n_candidates": 2, "rule": "exact",
    "frequencies": Path("f.tsv"),
    "kind": ("tuned",), "text": ("other.jsonl",), "field": "body", "n_texts": 5, "n_held": 4,
    "max_tokens": 10, "skip": 1, "rotation": 2, "n_steps": 3, "positions": 1,
    "yardstick": Path("items.json"),
    "states": False, "named": ("king",),
    "top": 0.2, "filter_rate": 0.5, "least_tokens": 9, "how": "boost", "effects": False,
    "rank": 2, "alpha": 3.0, "targets": ("v_proj",), "dropout": 0.1, "learning_rate": 1e-3,
    "schedule": "linear", "warmup": 0.2, "epochs": 2, "batch": 2, "accumulate": 2, "cutoff": 99,
    "precision": "bfloat16", "save_every": 1, "question_layout": "tsv",
    "sentence_layout": "tsv", "direction": "both", "n_pairs": 3, "held_out": 0.4,
    "templates": {"en": "{source} {target}"}, "calibrated": True,
    "runs": 2, "bound": 0.1, "inside": True, "n_inside": 8,
    "sentences": "others.jsonl", "twins": ("words",), "n_twins": 3, "most_pairs": 2,
    "phase_languages": ("de",), "phase_layers": (1,), "relevance_rule": "gradient",
    "causal": True, "headers": "item",
}  # fmt: skip
SPECIAL = {
    ("xmrc", "layout"): "mlqa",
    ("xmrc", "kinds"): ("readable",),
    ("xmrc", "controls"): ("first-sentence",),
    ("phases", "controls"): (),
    ("phases", "relevance_rule"): "attnlrp",
    ("phases", "layout"): "mlqa",
    ("phases", "kinds"): ("readable",),
    ("neurons", "questions"): None,  # instead of text
    ("neurons", "sentences"): None,  # instead of text
    ("neurons", "text"): ("en=en.txt",),
    ("neurons", "languages"): None,  # of questions
    ("neurons", "layout"): "squad",
    ("neurons", "sentence_layout"): None,  # of what is read
    ("align", "source"): ("fr",),
    ("align", "target"): "fr",
    ("align", "questions"): "others.jsonl",
    ("align", "instruction"): "target",
    ("align", "rule"): "first_token",
    ("align", "controls"): (),
    ("align", "data"): None,  # instead of items
    ("align", "context"): None,  # of data
    ("align", "question_layout"): "squad",
    ("lens", "source"): None,  # settled into `pairs`
    ("lens", "target"): None,
    ("process", "incomplete"): "error",
    ("subspace", "layout"): None,  # of what is read
    **dict.fromkeys([(c, "sentences") for c in ("process", "steer")]),  # beside items
    **dict.fromkeys([(c, "sentence_layout") for c in ("process", "steer")]),  # of sentences
    ("subspace", "pooling"): "last",
    ("subspace", "families"): Path("families.tsv"),
    ("neurons", "twins"): None,  # of sentences
    ("twins", "n_items"): 9,
    ("lens", "task"): "repetition",
    ("choices", "lens"): ("logit",),
    ("choices", "pivot"): None,  # of what is read inside, and refused without a lens
    ("choices", "n_latent"): None,
    ("process", "lens"): ("jacobian",),
    ("phases", "lens"): ("jacobian",),
    ("xmrc", "lens"): None,  # of phases
    **dict.fromkeys([("lens", name) for name in ("others", "n_causal", "donors", "layers")]),
    # of the causal test, and refused without it
}


def small(command: str) -> Study:
    return STUDIES[command](**SMALL[command])


def changed(command: str, name: str) -> object:
    if (command, name) in SPECIAL:
        return SPECIAL[command, name]
    return "drop" if name == "incomplete" else OTHERS[name]


@cache
def digests_of(command: str) -> dict[str, Any]:
    """What the small study's data is known by; every test of this file writes the same."""
    study = small(command)
    return study.digest(study.read())


FIELDS = [
    (command, field.name)
    for command, kind in STUDIES.items()
    if command != "demo"
    for field in fields(kind)
    if changed(command, field.name) is not None
]


@pytest.mark.parametrize(("command", "name"), FIELDS)
def test_every_field_decides(command, name):
    """Another value is another config, and decides the parts: all of them, or the derived ones."""
    one, value = small(command), changed(command, name)
    other = replace(one, **{name: value}).options()
    assert one.options() != other, f"{name} has that value already, or is no option"
    run = RunDirectory.create("run", {command: one.options()}, {})
    free = [f"{command}.{n}" for n in one.FREE]
    if name in one.FREE:
        RunDirectory.check(run.path, {command: other}, free=free)
    else:
        with pytest.raises(ValueError, match=rf"differs in {command}\.{name}"):
            RunDirectory.check(run.path, {command: other}, free=free)
    digests = digests_of(command)
    before, after = (MadeFrom(o | digests, one.FREE, None) for o in (one.options(), other))
    if name not in digests:  # what a file holds decides, not where it lies
        assert before.of(derived=True) != after.of(derived=True)
        assert (before.of(derived=False) == after.of(derived=False)) == (name in one.FREE)


def parts_of(run: Path) -> dict[str, dict[str, bytes]]:
    return {
        str(path.parent.relative_to(run)): {p.name: p.read_bytes() for p in path.parent.iterdir()}
        for path in run.glob("results/**/result.json")
    }


@pytest.mark.parametrize("command", ["lens", "choices"])
def test_what_is_free_makes_only_summaries_anew(command, folder, monkeypatch):
    model = xlens.load(folder, device="cpu")
    study = small(command)
    xlens.run(study, model, out="run", progress=False)
    before = parts_of(Path("run"))
    monkeypatch.setattr("xlens.engine.forward.run_batches", None, raising=False)
    free = {name: OTHERS[name] for name in study.FREE}
    done = xlens.run(replace(study, **free), model, out="run", progress=False)
    after = parts_of(Path("run"))
    differ = {name for name in before if before[name] != after[name]}
    ends = ("consistency", "language-shares")
    derived = {name for name in before if "summary-" in name or name.endswith(ends)}
    assert differ == derived and derived
    assert RunDirectory.open("run").resampling == replace(study, **free).resampling
    assert {*done.parts, *done.across} == {n.split("/", 2)[2] for n in before}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c, marks=pytest.mark.slow) if c not in ("lens", "choices") else c
        for c in STUDIES
        if c not in ("demo", "twins")  # of two models: see test_twins_study.py
    ],
)
def test_python_and_command_line_are_one(command, folder, capsys):
    """The same options by either way: the same parts, to the byte, and the same config.

    And the terminal says what the page says.
    """
    study = small(command)
    done = xlens.run(study, str(folder), out="python", progress=False)
    asked = {command: {"model": str(folder), **study.options()}}
    given = {k: v for k, v in asked[command].items() if v is not None}
    Path("asked.yaml").write_text(yaml.safe_dump({command: given}))
    with pytest.raises(SystemExit) as end:
        main(["--config", "asked.yaml", command, "--out", "line"])
    assert not end.value.code
    one, two = RunDirectory.open("python"), RunDirectory.open("line")
    assert one.config == two.config and one.results() == two.results()
    (name,) = one.models
    assert list(done.parts) == list(study.parts(study.read()))
    for part, result in done.parts.items():
        mine, other = (run.parts(name)[part] for run in (one, two))
        assert type(mine) is type(other) is type(result)
        assert mine.provenance["made_from"] == other.provenance["made_from"]
        for field in fields(mine):
            if field.name != "provenance":
                a, b = getattr(mine, field.name), getattr(other, field.name)
                # An adapter lies in its run's folder.
                assert repr(a).replace("/python/", "/line/") == repr(b), (part, field.name)
    if page_of(command) is not PLAIN:
        same_sentences(two.report_file, capsys.readouterr().out)


@pytest.mark.slow
def test_several_models_and_revisions_have_parts_of_their_own(folder, tmp_path, capsys):
    other = tiny.make("gpt2", tmp_path / "other", n_positions=512, seed=1)
    study = replace(small("lens"), n_items=3)
    with pytest.raises(SystemExit) as end:
        main(["lens", str(folder), str(other), *("--pairs", "de:ru", "--words", "words.jsonl"),
              *("--n-items", "3", "--controls", "--out", "both")])  # fmt: skip
    assert not end.value.code
    short = capsys.readouterr().out.partition("In short:")[2]
    assert "tiny-gpt2: " in short and "other: " in short
    run = RunDirectory.open("both")
    assert run.models == ("other", "tiny-gpt2")
    mine, theirs = (run.parts(name)["de_ru/translation"] for name in run.models)
    assert not mine.rows.equals(theirs.rows)
    page = run.report_file.read_text(encoding="utf-8")
    assert "German → Russian, other" in page and "German → Russian, tiny-gpt2" in page
    done = xlens.run(
        study,
        "atlas",
        loading=Loading(revision=("step512", "step2048")),
        progress=False,
        data=study.read(),
    )
    assert set(done.models) == {"atlas@step512", "atlas@step2048"}
    early, late = (parts["de_ru/translation"] for parts in done.models.values())
    assert early.provenance["fingerprint"] != late.provenance["fingerprint"]
    with pytest.raises(ValueError, match=r"Parts of 2 models.*atlas@step512, atlas@step2048"):
        _ = done.parts


def test_options_are_written_once():
    """Every field of a study is an option of its command, by the same name and with its help."""
    said: dict[str, str] = {}
    for command, kind in STUDIES.items():
        takes = {name for a in app[command].assemble_argument_collection() for name in a.names}
        for field in fields(kind):
            spelt = {"source": "from", "target": "to"}.get(field.name, field.name)
            assert f"--{spelt.replace('_', '-')}" in takes, (command, field.name)
            assert f"--{field.name.replace('_', '-')}" in takes, (command, field.name)
    for module in (ROOT / "xlens").glob("studies/*.py"):
        for line in module.read_text(encoding="utf-8").splitlines():
            text = line.strip()
            # A line of help; the same words twice would have to be changed twice.
            if line.startswith("        ") and text.endswith(".") and ": " in text:
                assert said.setdefault(text, module.name) == module.name, text


def test_help_shows_own_options_first_and_defaults_as_written(capsys):
    with pytest.raises(SystemExit):
        main(["xmrc", "--help"])
    said = capsys.readouterr().out
    heads = ["Parameters", "Intervals", "Models", "Endpoints", "Run"]
    places = [said.index(f"─ {head} ─") for head in heads]
    assert places == sorted(places)
    own = said[: places[1]]
    assert "--data" in own and "--draws" not in own and "--dtype" not in own
    shown = " ".join(said.replace("│", " ").split())
    assert "[default: mismatched first-sentence random-span random-init]" in shown
    assert "[default: 0]" in shown
    assert not {"[default: ()]", "[default: False]", "[default: {}]"} & {*shown.split("  ")}
    assert "default: (" not in shown and "default: False" not in shown


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*/*.yaml")), ids=str)
def test_shipped_configurations_can_be_planned(path, monkeypatch):
    """Not only their options are known: there are as many items as they ask for."""
    asked = yaml.safe_load(path.read_text(encoding="utf-8"))
    for command, options in asked.items():
        kind = STUDIES[command]
        beside = {f.name for f in (*fields(Loading), *fields(Serving))}
        beside |= {"model", "out", "static", "overwrite"}
        own = {name: value for name, value in options.items() if name not in beside}
        assert set(own) <= {field.name for field in fields(kind)}, path
        own = {n: tuple(v) if isinstance(v, list) else v for n, v in own.items()}
        of = get_type_hints(kind)  # the command line makes paths of text, Python doesn't
        own = {n: Path(v) if v and Path in get_args(of[n]) else v for n, v in own.items()}
        study = kind(**own)
        if command == "xmrc" and not Path(study.data).exists():
            continue  # data that is not ours
        if command == "align" and study.questions and not Path(study.questions).exists():
            continue  # its run.py writes them first
        of_text = command == "subspace" or (command == "steer" and study.sentences)
        if of_text and not (study.sentences and Path(study.sentences).exists()):
            continue  # likewise
        data = study.read()
        study.check(data)
        assert study.parts(data)
        if command in ("choices", "process"):
            for choices in data.values():
                assert len(choices) >= study.n_items, f"{path}: {len(choices)} items are there"


TOY = '''
"""A toy."""

from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from xlens.results import Result
from xlens.studies.study import Step, Study


@dataclass(frozen=True, kw_only=True)
class Lengths(Result):
    table: pd.DataFrame

    def to_frame(self):
        return self.table


@dataclass(frozen=True, kw_only=True)
class ToyStudy(Study):
    """How long are words?

    Attributes:
        tags: Languages of the words.
    """

    COMMAND: ClassVar[str] = "toy"
    tags: tuple[str, ...] = ("en", "de")

    def read(self):
        from xlens.tasks.words import cldr_words

        return cldr_words(list(self.tags), ["weekday"])

    def parts(self, data):
        return ("lengths",)

    def digest(self, data):
        return {"words": data.frame.to_json()}

    def steps(self, data, model, kept):
        def make(done):
            rows = [(tag, len(model.tokenizer(" ".join(data.frame[tag]))["input_ids"]))
                    for tag in self.tags]
            return Lengths(provenance=model.provenance(),
                           table=pd.DataFrame(rows, columns=["language", "tokens"]))

        yield Step.one("lengths", Lengths, make)
'''


@pytest.mark.slow
def test_a_new_study_is_one_module(folder, tmp_path):
    """It has command line, YAML, resume and a report, and nothing else is touched."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "toy.py").write_text(TOY)
    start = (
        "import sys, xlens.studies; xlens.studies.__path__.append(sys.argv.pop(1));"
        "from xlens.cli import main; main()"
    )

    def toy(*line: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", start, str(tmp_path / "more"), *line]
        return subprocess.run(command, capture_output=True, text=True, timeout=200)

    Path("toy.yaml").write_text(yaml.safe_dump({"toy": {"model": str(folder), "tags": ["en"]}}))
    done = toy("--config", "toy.yaml", "toy", "--out", "run")
    assert done.returncode == 0, done.stderr
    saved = Path("run/results/tiny-gpt2/lengths/result.json")
    first = saved.stat().st_mtime_ns
    again = toy("--config", "toy.yaml", "toy", "--out", "run")
    assert again.returncode == 0 and saved.stat().st_mtime_ns == first
    assert "tokens" in Path("run/report.html").read_text(encoding="utf-8")
    other = toy("toy", str(folder), "--tags", "de", "--out", "run")
    assert other.returncode == 2 and "differs in toy.tags" in other.stderr


def test_any_result_is_read_as_what_it_is(folder, tmp_path):
    study = LensStudy(pairs=("de:ru",), kinds=("weekday",), n_items=3, controls=())
    done = xlens.run(study, str(folder), progress=False)
    for name, part in done.parts.items():
        part.save(tmp_path / "x" / name)
        found = results.load(tmp_path / "x" / name)
        assert type(found) is type(part) and found.to_frame().equals(part.to_frame())
    with pytest.raises(ValueError, match="No saved result"):
        results.load(tmp_path / "nothing")
    header = tmp_path / "x" / "de_ru" / "survival" / "result.json"
    told = json.loads(header.read_text())
    for module in ("os", "xlens.__main__", "xlens.nosuch"):  # nothing of that is run
        header.write_text(json.dumps({**told, "type": "Evil", "module": module}))
        with pytest.raises(ValueError, match=r"holds a Evil, a kind of result that isn't known"):
            results.load(header.parent)
    with pytest.raises(KeyError, match="the parts are de_ru/translation"):
        _ = done["nothing"]


def test_a_model_is_needed_and_one_that_fits(folder):
    with pytest.raises(ValueError, match="No model is named"):
        xlens.run(small("choices"))
    served = xlens.served.ServedModel("m", "http://localhost:1/v1")
    with pytest.raises(ValueError, match="served and gives text only; xlens choices needs"):
        xlens.run(small("choices"), served)
    with pytest.raises(ValueError, match="accepted is a WordList"):
        xlens.run(small("lens"), str(folder), data=[1])


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in STUDIES if c not in ("demo", "twins")])
def test_a_killed_study_goes_on_to_the_same_end(command, folder):
    """kill -9 as soon as the first, the second, ... part is there; then the same command again."""
    asked = {command: {"model": str(folder), **small(command).options()}}
    given = {k: v for k, v in asked[command].items() if v is not None}
    Path("asked.yaml").write_text(yaml.safe_dump({command: given}))

    def start(out: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "xlens", "--config", "asked.yaml", command, "--out", out]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(line, **quiet, env={**os.environ, "XLENS_CACHE": f"{out}-cache"})

    assert start("whole").wait(200) == 0
    whole = parts_of(Path("whole"))
    kills = 0
    for n in range(1, len(whole) + 1):
        child = start("killed")
        while sum(map(len, RunDirectory(Path("killed")).results().values())) < n:
            if child.poll() is not None:
                break
            time.sleep(0.002)
        kills += child.poll() is None
        child.kill()
        child.wait()
    assert kills >= min(2, len(whole) - 1)
    assert start("killed").wait(200) == 0
    one, two = RunDirectory.open("whole"), RunDirectory.open("killed")
    assert one.results() == two.results() and one.models
    for model in one.models:
        mine, other = one.parts(model), two.parts(model)
        for name, part in mine.items():
            for field in fields(part):
                a, b = getattr(part, field.name), getattr(other[name], field.name)
                if isinstance(a, pd.DataFrame):
                    # A map's axes come from LAPACK, whose last bit hangs on where memory lies.
                    pd.testing.assert_frame_equal(a, b, rtol=1e-9, atol=1e-12)
                elif field.name != "provenance":
                    # An adapter lies in its run's folder.
                    assert repr(a) == repr(b).replace("/killed/", "/whole/"), (name, field.name)
    assert Path("killed/report.html").is_file()


def test_what_another_process_writes_of_the_same_run_is_left_to_it(folder):
    """Before the first result is there; asked otherwise, a run without results is begun anew."""
    study = small("choices")
    done = xlens.run(study, str(folder), out="run", progress=False)
    assert done.folder is not None
    config, own = done.folder.config, {"choices.draws"}
    for part in Path("run/results").iterdir():
        shutil.rmtree(part)
    draft = files.unique(Path("run/results/tiny-gpt2/items/scores"))
    draft.mkdir(parents=True)
    xlens.run(study, str(folder), out="run", progress=False)
    assert draft.is_dir()
    run = RunDirectory.open("run")
    changed = {"choices": {**config["choices"], "draws": 77}}
    assert not run.asked_otherwise(config) and run.asked_otherwise(changed)
    assert not run.asked_otherwise(changed, free=own)
    for part in Path("run/results/tiny-gpt2/items").iterdir():
        if part != draft:
            shutil.rmtree(part)
    xlens.run(replace(study, n_items=9), str(folder), out="run", progress=False)
    assert not draft.is_dir()
