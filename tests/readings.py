"""Reading comprehension written for the tests: six paragraphs, twelve questions, four languages."""

import json
from pathlib import Path

import pandas as pd
import pytest

from xlens.stats import Resampling
from xlens.studies.reading import SUMMARIES
from xlens.studies.steps.reading_summary import summary_steps
from xlens.tasks.xmrc import ReadingSet, read_reading

LANGUAGES = ("en", "de", "ru", "zh-Hans")
XQUAD = Path(__file__).parents[2] / "shared" / "data" / "xquad"

# Who, where, what is liked.
_WORDS = tuple(
    tuple(tuple(part.split("/")) for part in line.split())
    for line in """\
dog/Hund/пёс/狗 garden/Garten/саду/花园 milk/Milch/молоко/牛奶
cat/Kater/кот/猫 kitchen/Flur/доме/厨房 fish/Fisch/рыбу/鱼
bear/Bär/медведь/熊 forest/Wald/лесу/森林 honey/Honig/мёд/蜂蜜
goat/Esel/осёл/山羊 field/Keller/поле/田野 grass/Heu/сено/草
king/König/король/国王 palace/Palast/дворце/宫殿 wine/Wein/вино/酒
child/Junge/мальчик/孩子 school/Schuppen/сарае/学校 bread/Brot/хлеб/面包""".splitlines()
)
_TOLD = {
    "en": (
        "Once there was a story. ",
        "The {0} sleeps in the {1}. ",
        "It likes {2}, says Dr. Lee.",
    ),
    "de": ("Es war einmal. ", "Der {0} schläft im {1}. ", "Er mag {2}, sagt Dr. Lee."),
    "ru": ("Жили-были. ", "Этот {0} спит в {1}. ", "Он любит {2}, говорит Ли."),
    "zh-Hans": ("从前有一个故事。", "{0}在{1}里睡觉。", "它喜欢{2}。"),
}
_ASKED = {
    "en": ("Where does the {0} sleep?", "What does the {0} like?"),
    "de": ("Wo schläft der {0}?", "Was mag der {0}?"),
    "ru": ("Где спит {0}?", "Что любит {0}?"),
    "zh-Hans": ("{0}在哪里睡觉？", "{0}喜欢什么？"),
}


def rows() -> list[dict]:
    """Three articles of two paragraphs of two questions, in every language."""
    made = []
    for k, tag in enumerate(LANGUAGES):
        for n, words in enumerate(_WORDS):
            said = [each[k] for each in words]
            parts = [part.format(*said) for part in _TOLD[tag]]
            for q, (question, sentence) in enumerate(zip(_ASKED[tag], (1, 2), strict=True)):
                answer = said[q + 1]
                start = sum(map(len, parts[:sentence])) + parts[sentence].index(answer)
                made.append(
                    {
                        "id": f"q{n}{q}",
                        "language": tag,
                        "question": question.format(*said),
                        "context": "".join(parts),
                        "answers": [answer],
                        "starts": [start],
                        "paragraph": f"{n // 2}/{n % 2}",
                        "title": f"Story {n // 2}",
                    }
                )
    return made


def sources() -> list:
    """The stories, and XQuAD where it is at hand: what holds of one should hold of the other."""
    here = [] if XQUAD.is_dir() else [pytest.mark.skip(reason="XQuAD is not here")]
    return ["stories", pytest.param("xquad", marks=here)]


def read(source: str, languages: list[str], folder: Path) -> ReadingSet:
    """One of `sources`, through the files of its layout."""
    if source == "xquad":
        return read_reading(XQUAD, languages=languages)
    for tag in LANGUAGES:
        file = folder / f"stories.{tag}.json"
        file.write_text(json.dumps(squad(tag), ensure_ascii=False), encoding="utf-8")
    there = [tag for tag in languages if tag in LANGUAGES or tag == "zh"]
    return read_reading(folder, languages=[{"zh": "zh-Hans"}.get(tag, tag) for tag in there])


def reading_set(*changes: dict) -> ReadingSet:
    """The whole set, with a change to each of its first rows in turn."""
    every = rows()
    for row, change in zip(every, changes, strict=False):
        row |= change
    return ReadingSet(pd.DataFrame(every), "stories")


def squad(language: str) -> dict:
    """One language of the set as SQuAD's JSON."""
    data: dict[str, dict[str, list[dict]]] = {}
    for row in rows():
        if row["language"] == language:
            data.setdefault(row["title"], {}).setdefault(row["context"], []).append(
                {
                    "id": row["id"],
                    "question": row["question"],
                    "answers": [{"text": row["answers"][0], "answer_start": row["starts"][0]}],
                }
            )
    articles = [
        {"title": title, "paragraphs": [{"context": c, "qas": q} for c, q in found.items()]}
        for title, found in data.items()
    ]
    return {"version": "1.1", "data": articles}


def summed(parts: dict) -> dict:
    """Parts with the summaries that a study makes of them."""
    how = parts["scores"].resampling if "scores" in parts else Resampling()
    made = {**parts}
    names = [name for name in SUMMARIES if name in parts and SUMMARIES[name] not in parts]
    for step in summary_steps(names, how):
        made |= step.make(made)
    return made
