"""What stands in, where pages name models, files and servers that the tests don't have.

The one list: a name that a page uses, and what it means in the tests. Everything else on a page is
what a reader types.
"""

import json
from collections.abc import Iterator
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

import tiny
import xlens

SKIPPED: dict[tuple[str, int], str] = {
    ("docs/lens.md", 0): "reads the run of the `xlens fit-lens` above it, which takes minutes",
    ("docs/lens.md", 1): "goes on from the block before it",
}
"""Blocks that can't run here, by page and number, and why; at most one in twenty."""
ON_A_HUB = (
    *("gemma-3-270m", "google/gemma-3-270m", "google/gemma-3-1b-pt", "org/base"),
    "path/to/post-trained",
    "Qwen/Qwen3-8B",
)
FEW_LAYERS = ("docs/phases.md", "docs/subspace.md", "docs/process.md", "docs/xmrc.md")
FEW_LAYERS += ("docs/recipes/checkpoints.md", "docs/recipes/neurons.md")
"""Where every layer takes its time."""
ADAPTERS = ("path/to/lora", "org/lora")
CITIES = ("Rom", "Oslo", "Lima", "Bonn", "Kiew", "Bern")
FACTS = "id\trelation\tlanguage\tsubject\tobject\n1\tcapital\ten\tFrance\tParis\n"


@cache
def folder(n_layer: int = 18) -> Path:
    """The model that any hub's is: as many layers and heads as Gemma 3 270M, and tiny."""
    return tiny.make("gpt2", Path(mkdtemp()) / "tiny", n_positions=1024, n_layer=n_layer)


def files(page: str, at: Path) -> None:
    """What a page reads, in the folder where it runs."""
    rows: list[dict[str, Any]] = []
    for n, city in enumerate(CITIES):
        for tag, start, asked in (
            ("en", f"The king lives in {city}.", "Where is the king?"),
            ("de", f"Der König wohnt in {city}.", "Wo ist der König?"),
        ):
            spans = {
                "context": [0, len(start)],
                "question": [len(start) + 1, len(start + asked) + 1],
            }
            text = f"{start} {asked} =>"
            rows.append({"id": str(n), "language": tag, "text": text, "spans": spans})
    lines(at / "prompts.jsonl", rows)
    lines(at / "corpus" / "en.jsonl", [{"text": "Paris is the capital of France."}])
    (at / "facts.tsv").write_text(FACTS, encoding="utf-8")
    for tag, code in zip(readings.LANGUAGES, ("en", "de", "ru", "zh"), strict=True):
        told = squad(tag, 10 if page == "docs/xmrc.md" else 1)
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
    for code, said in (("arb_Arab", "بيت"), ("arb_Latn", "bayt"), ("eng_Latn", "house")):
        rows = "".join(f"{n}\ttravel\t{said} {said} {n}\n" for n in range(6))
        path = at / "data" / "sib200" / code / "train.tsv"
        path.parent.mkdir(parents=True)
        path.write_text("index_id\tcategory\ttext\n" + rows, encoding="utf-8")
    for tag in ("it", "zh"):
        lines(at / "xcopa" / "data" / tag / f"test.{tag}.jsonl", xcopa_rows(tag))


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
        addresses: Of servers that it names, and of those that stand in for them.
    """

    shown: list[Any]
    addresses: dict[str, str]

    def code(self, text: str) -> str:
        for named, here in self.addresses.items():
            text = text.replace(named, here)
        return text


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
        if isinstance(source, str) and source in ON_A_HUB:
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
        patch.dict("os.environ", {"EXAMPLE_API_KEY": "of nobody"}),
        chdir(at),
    ):
        yield Stage(shown, {"http://localhost:8000/v1": chat.url})
