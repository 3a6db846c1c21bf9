"""What stands in, where pages name models, files and servers that the tests don't have.

The one list: a name that a page uses, and what it means in the tests. Everything else on a page is
what a reader types.
"""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import endpoint
import readings
import test_corpus_index as index
import tiny_gguf
from test_choices import xcopa_rows
from test_facts import klar

import tiny
import xlens

SKIPPED: dict[tuple[str, int], str] = {}
"""Python blocks that can't run here, by page and number, and why; at most one in twenty."""
LATER: dict[str, str] = {
    "xlens process gemma-3-270m --items xcopa:FOLDER mine.jsonl --pivot it": (
        "two sets of items of one's own; tests/test_process.py reads several"
    ),
    "xlens lens gemma-3-270m --pairs fr:zh-Hans de:ru --causal --layers 12 14 16 "
    "--lens jacobian=RUN": "layers that a stand-in lacks, and a lens of it; the line above runs",
}
"""Lines of `xlens` that can't run here, and why; at most one in twenty."""
SERVERS = ("http://localhost:8000/v1", "https://api.example.org/v1", "https://api.openai.com/v1")
OTHERS = ("path/to/post-trained", "runs/zh-de/final")
"""Models that stand beside one of those on a hub, trained from it: of its layers and width."""
ON_A_HUB = (
    *("gemma-3-270m", "google/gemma-3-270m", "google/gemma-3-1b-pt", "org/base"),
    "Qwen/Qwen3-8B",
)
FEW_LAYERS = ("docs/phases.md", "docs/subspace.md", "docs/process.md", "docs/xmrc.md")
FEW_LAYERS += ("README.md", "docs/facts.md", "docs/choices.md", "docs/alignment.md")
FEW_LAYERS += ("docs/studies.md", "docs/recipes/checkpoints.md", "docs/recipes/neurons.md")
"""Where every layer takes its time, and none is named."""
MANY_ITEMS = ("docs/xmrc.md", "docs/alignment.md")
ADAPTERS = ("path/to/lora", "org/lora")
CITIES = ("Rom", "Oslo", "Lima", "Bonn", "Kiew", "Bern")
SENTENCES = {
    "en": [f"The {n} dogs of the king sleep in the house by the river." for n in range(6)],
    "de": [f"Die {n} Hunde des Königs schlafen im Haus am Fluss." for n in range(6)],
    "hi": [f"राजा के {n} कुत्ते नदी के किनारे घर में सोते हैं।" for n in range(6)],
    "sw": [f"Mbwa {n} wa mfalme wanalala nyumbani karibu na mto." for n in range(6)],
    "zh": [f"国王的{n}只狗睡在河边的房子里。" for n in range(6)],
    "ar": [f"تنام كلاب الملك {n} في البيت قرب النهر." for n in range(6)],
}
SIB = {"arb_Arab": "بيت", "arb_Latn": "bayt", "eng_Latn": "house", "deu_Latn": "Haus"}
SIB["hin_Deva"] = "घर"
NTREX = {"en": "src.eng", "de": "ref.deu", "zh": "ref.zho-CN", "ar": "ref.arb"}
WORDS_FILE = """id\ten\tde\tzh-Hans
dog\tdog\tHund\t狗
day\tday\tTag\t天
book\tbook\tBuch\t书
tree\ttree\tBaum\t树
sun\tsun\tSonne\t太阳
fish\tfish\tFisch\t鱼
house\thouse\tHaus\t房子
milk\tmilk\tMilch\t牛奶
king\tking\tKönig\t国王
"""
FACTS = "id\trelation\tlanguage\tsubject\tobject\n1\tcapital\ten\tFrance\tParis\n"


def _few() -> str:
    return str(folder(2))


WORDS: dict[str, Callable[[], str]] = {
    **dict.fromkeys((*ON_A_HUB, "MODEL", "base", "small"), _few),
    **dict.fromkeys(("large", "base-it"), lambda: str(folder(3))),
    **dict.fromkeys(OTHERS, lambda: str(folder(2, seed=1))),
    **dict.fromkeys(("ray", "ray://head:10001?gpus=0.5"), lambda: "local"),
    "EleutherAI/pythia-160m": lambda: "./trained",
    "step*000": lambda: "all",
}
"""What a word of a command is called here; also behind `=`, `:` or `@` within one."""
RUNS = {"README.md": ("runs/base", "runs/aligned")}
"""Run directories of questions that a page takes for made."""
_READ = {"--n-items": ["8"], "--n-controls": ["2"], "--shots": ["0"], "--max-new-tokens": ["3"]}
_STUDY = {"--draws": ["50"], "--overwrite": []}
SMALL: dict[str, dict[str, list[str]]] = {
    "lens": _STUDY | {"--n-items": ["8"], "--n-controls": ["2"]},
    "choices": _STUDY | {"--n-items": ["3"]},
    "phases": _STUDY | {"--n-phases": ["4"], "--phase-layers": ["1", "2"], "--shots": ["0"]},
    "xmrc": _STUDY | _READ | {"--n-phases": ["4"], "--phase-layers": ["1", "2"]},
    "facts": _STUDY | {"--n-items": ["4"], "--shots": ["1"]},
    "process": _STUDY | {"--n-items": ["6"], "--n-latent": ["6"]},
    "align": _STUDY
    | {"--n-items": ["8"], "--n-pairs": ["4"], "--n-inside": ["8"], "--runs": ["1"]}
    | {"--epochs": ["1"], "--targets": [], "--shots": ["0"]},
    "twins": _STUDY | {"--n-items": ["8"]},
    "steer": _STUDY
    | {"--n-estimate": ["6"], "--n-dev": ["3"], "--n-test": ["3"], "--n-controls": ["1"]}
    | {"--layers": ["1"], "--strengths": ["1"]},
    "neurons": _STUDY | {"--n-texts": ["6"], "--least-tokens": ["20"]},
    "subspace": _STUDY | {"--n-items": ["6"]},
    "fit-lens": _STUDY
    | {"--n-texts": ["8"], "--n-held": ["2"], "--n-steps": ["5"], "--max-tokens": ["24"]}
    | {"--rotation": ["8"]},
}
"""How a command's size is turned down, in place of what a page says or beside it."""
SMALL_WITH: dict[str, dict[str, list[str]]] = {
    "--steer": {"--n-estimate": ["6"], "--n-dev": ["3"], "--n-test": ["3"], "--n-controls": ["1"]}
    | {"--n-outputs": ["1"], "--strengths": ["1"]},
    "--fp32-sample": {"--fp32-sample": ["4"]},
}
"""The same, where an option is asked for."""
SMALL_CODE = {
    r"(?<!class )\b(\w+Study)\((?=\w+=)": r"\1(draws=50, ",
    r"(Study\(.*)n_items=\d+": r"\1n_items=6",
    r"\.sample\(60\)": ".sample(6)",
    r"ids\[:40\], choices\.ids\[40:60\]": "ids[:6], choices.ids[6:9]",
    r'"n_estimate": 40, "n_dev": 20, "n_test": 20': '"n_estimate": 6, "n_dev": 3, "n_test": 3',
    r"strengths=\[1, 4, 8\]": "strengths=[4]",
}
"""Sizes in Python blocks, as patterns, and what they are here."""


@cache
def folder(n_layer: int = 18, seed: int = 0) -> Path:
    """The model that any hub's is: as many layers and heads as Gemma 3 270M, and tiny."""
    at = Path(mkdtemp()) / "tiny"
    return tiny.make("gpt2", at, seed=seed, n_positions=1024, n_layer=n_layer)


def files(page: str, at: Path) -> None:
    """What a page reads, in the folder where it runs."""
    rows: list[dict[str, Any]] = []
    for n, city in enumerate(CITIES):
        for tag, start, asked in (
            ("en", f"The king lives in {city}.", "Where is the king?"),
            ("de", f"Der König wohnt in {city}.", "Wo ist der König?"),
        ):
            city_at = start.index(city)
            spans = {
                "city": [city_at, city_at + len(city)],
                "context": [0, len(start)],
                "question": [len(start) + 1, len(start + asked) + 1],
            }
            text = f"{start} {asked} =>"
            rows.append({"id": str(n), "language": tag, "text": text, "spans": spans})
    lines(at / "prompts.jsonl", rows)
    for_shell(at)
    lines(at / "corpus" / "en.jsonl", [{"text": "Paris is the capital of France."}])
    (at / "facts.tsv").write_text(FACTS, encoding="utf-8")
    for tag, code in zip(readings.LANGUAGES, ("en", "de", "ru", "zh"), strict=True):
        told = squad(tag, 10 if page in MANY_ITEMS else 1)
        write_json(at / "xquad" / f"xquad.{code}.json", told)
        write_json(at / "data" / "xquad" / f"xquad.{code}.json", told)
    for tag, code in (("en", "en"), ("de", "de"), ("zh-Hans", "zh")):
        name = f"test-context-{code}-question-{code}.json"
        write_json(at / "MLQA_V1" / "test" / name, readings.squad(tag))
    told = readings.squad("en")
    for part in told["data"]:
        for text in part["paragraphs"]:
            text["qas"] = [{**q, "id": f"english-{q['id']}"} for q in text["qas"]]
    write_json(at / "tydiqa-goldp-dev.json", told)
    for code, said in SIB.items():
        rows = "".join(f"{n}\ttravel\t{f'{said} ' * 7}{n}\n" for n in range(12))
        path = at / "data" / "sib200" / code / "train.tsv"
        path.parent.mkdir(parents=True)
        path.write_text("index_id\tcategory\ttext\n" + rows, encoding="utf-8")
    for tag in ("it", "zh"):
        lines(at / "xcopa" / "data" / tag / f"test.{tag}.jsonl", xcopa_rows(tag))


def for_shell(at: Path) -> None:
    """Texts and lists that commands name."""
    (at / "words.tsv").write_text(WORDS_FILE, encoding="utf-8")
    for name, tag in (("english", "en"), ("german", "de"), ("swahili", "sw"), ("wiki.en", "en")):
        text = "\n".join(SENTENCES[tag] * 4)
        (at / f"{name}.txt").write_text(text, encoding="utf-8")
    rows = "".join(json.dumps({"text": text}) + "\n" for text in SENTENCES["de"] * 4)
    (at / "wiki.de.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    (at / "data" / "ntrex").mkdir(parents=True)
    (at / "data" / "mgsm").mkdir(parents=True)
    for tag, texts in SENTENCES.items():
        asked = "".join(f"{text}\t{n}\n" for n, text in enumerate(texts))
        (at / "data" / "mgsm" / f"mgsm_{tag}.tsv").write_text(asked, encoding="utf-8")
        if tag in NTREX:
            name = f"newstest2019-{NTREX[tag]}.txt"
            (at / "data" / "ntrex" / name).write_text("\n".join(texts), encoding="utf-8")
    (at / "data" / "ntrex" / "DOCUMENT_IDS.tsv").write_text("a\n" * 6, encoding="utf-8")
    (at / "checkpoints.tsv").write_text(
        f"model\tname\tstep\n{folder(2)}\tearly\t100\n{folder(3)}\tlate\t200\n", encoding="utf-8"
    )
    for tag, place in (("en", "Rome"), ("fr", "Rome"), ("es", "Roma")):
        objects = [place, "Oslo", "Lima", "Bonn"]
        klar(at / "data" / "klar", tag, objects, "Capital of <subject>? The answer is: <mask>")
    for step in (500, 1000):
        (at / "trained").mkdir(exist_ok=True)
        (at / "trained" / f"checkpoint-{step}").symlink_to(folder(2))


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    said = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(said), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def squad(tag: str, times: int) -> dict[str, Any]:
    """The tests' reading set, told several times with another number before it."""
    data = []
    for n in range(times):
        for part in readings.squad(tag)["data"]:
            told = {"title": f"{part['title']} {n}", "paragraphs": []}
            for text in part["paragraphs"]:
                start = f"{n}. "
                asked = [
                    {**q, "id": f"{q['id']}-{n}", "answers": [
                        {**a, "answer_start": a["answer_start"] + len(start)} for a in q["answers"]
                    ]} for q in text["qas"]
                ]  # fmt: skip
                told["paragraphs"].append({"context": start + text["context"], "qas": asked})
            data.append(told)
    return {"version": "1.1", "data": data}


def from_the_hub(name: str, config: str, **_: Any) -> list[dict[str, Any]]:
    """Rows of the two data sets that pages download."""
    if "belebele" in name:
        return [
            {"link": f"l{n}", "question_number": 1, "flores_passage": f"{config} text {n}.",
             "question": f"{config} question {n}?", "correct_answer_num": "1",
             **{f"mc_answer{k}": f"{config} {n} {k}" for k in range(1, 5)}}
            for n in range(4)
        ]  # fmt: skip
    tag = {"zh": "zh-Hans"}.get(config[-2:], config[-2:])
    return [
        {**q, "title": part["title"], "context": text["context"],
         "answers": {key: [a[key] for a in q["answers"]] for key in ("text", "answer_start")}}
        for part in readings.squad(tag)["data"] for text in part["paragraphs"] for q in text["qas"]
    ]  # fmt: skip


def names(page: str, at: Path) -> dict[str, Any]:
    """Objects that a page says the reader has."""
    if page != "docs/models.md":
        return {}
    import test_adapters as adapters
    from transformers import AutoModelForCausalLM

    tiny.make("gpt2", at / "path" / "to" / "checkpoint")
    tiny_gguf.make(at / "model.gguf")
    for place in ADAPTERS:
        base = AutoModelForCausalLM.from_pretrained(folder())
        wrapped = adapters.trained(base, at / place, family="gpt2", target_modules=["c_attn"])
    hf_model, tokenizer = tiny.model("gpt2"), tiny.tokenizer("gpt2")
    model = xlens.load(hf_model, tokenizer)
    return {"hf_model": hf_model, "tokenizer": tokenizer, "peft_model": wrapped, "model": model}


@dataclass
class Stage:
    """What a page runs on.

    Attributes:
        shown: Figures that it has shown.
        named: What it names, such as a server's address, and what stands in for that.
    """

    shown: list[Any]
    named: dict[str, str]

    def line(self, text: str) -> str:
        """A command that asks the servers which are here."""
        for said, here in self.named.items():
            text = text.replace(said, here)
        return text

    def code(self, text: str) -> str:
        """A Python block, likewise, and of less work."""
        for size, here in SMALL_CODE.items():
            text = re.sub(size, here, text)
        return self.line(text)


@contextmanager
def standing_in(page: str, at: Path) -> Iterator["Stage"]:
    """Names mean what they mean here, and `at` is where the page runs."""
    import plotly.graph_objects as go

    import xlens.corpus
    import xlens.tasks.choices.readers as choices
    import xlens.tasks.xmrc.readers as reading
    from xlens.corpus import InfiniGram

    shown: list[Any] = []
    load = xlens.load

    def loaded(source: Any, *args: Any, **options: Any) -> Any:
        if isinstance(source, str) and source in (*ON_A_HUB, *OTHERS):
            source = folder(3) if page in FEW_LAYERS else folder()
        return load(source, *args, **options)

    def configurations(name: str, **_: Any) -> list[str]:
        if "xquad" in name:
            return [f"xquad.{code}" for code in ("en", "de", "ru", "zh")]
        return ["eng_Latn", "deu_Latn", "swh_Latn", "zho_Hans"]

    def hub() -> Any:
        return from_the_hub, configurations

    files(page, at)
    with (
        endpoint.serving(endpoint.Endpoint(endpoint.echo)) as chat,
        index.serving(lambda pair, before: (200, {}, 7)) as counts,
        patch.object(xlens, "load", loaded, create=True),
        patch.object(go.Figure, "show", lambda figure: shown.append(figure)),
        patch.object(choices, "open_hub", hub),
        patch.object(reading, "open_hub", hub),
        patch.object(xlens.corpus, "InfiniGram", partial(InfiniGram, url=counts.url)),
        patch.dict("os.environ", dict.fromkeys(("EXAMPLE_API_KEY", "KEY"), "of nobody")),
        chdir(at),
    ):
        dolma = "infini-gram:v4_dolma-v1_7_llama"
        here = {dolma: f"{dolma}@{counts.url}", "http://localhost:9200": counts.url}
        here |= dict.fromkeys(SERVERS, chat.url)
        yield Stage(shown, here)
