"""Question alignment of the atlas: `python experiments/question_alignment/run.py`.

Writes two files of what the atlas read: questions to translate, and other facts to be asked about;
then runs `xlens align` on them with config.yaml. Options of that may follow, and win.
"""

import json
import sys
from pathlib import Path

from xlens.cli import main
from xlens.prompts.fewshot import seeded_rank
from xlens.testbed.atlas.facts import atlas_facts

FOLDER = Path("runs/question_alignment/data")
N_OPTIONS = 4


def write_data(folder: Path) -> None:
    """`questions.jsonl` of facts that every language states, `items.jsonl` of those that few do."""
    facts = atlas_facts()
    groups = {id: {facts.groups[id, tag] for tag in facts.languages} for id in facts.ids}
    asked = [id for id in facts.ids if "transfer" in groups[id]]
    subjects = {id: fact.subject for id, fact in facts.facts("en").items()}
    taken = {subjects[id] for id in asked}
    learned = [id for id in facts.ids if groups[id] == {"core"} and subjects[id] not in taken]
    questions, items = [], []
    for tag in facts.languages:
        own = facts.facts(tag)
        questions += [
            {"id": id, "language": tag, "text": own[id].asked.text.strip(), "group": subjects[id]}
            for id in learned
        ]
    for id in asked:
        relation = facts.relations[id]
        pool = [o for o in facts.ids if facts.relations[o] == relation and o != id]
        others = sorted(pool, key=lambda other: seeded_rank(id, other, seed=0))
        chosen = [id]
        for other in others:
            if all(_apart(facts.facts(tag), [*chosen, other]) for tag in facts.languages):
                chosen.append(other)
            if len(chosen) == N_OPTIONS:
                break
        if len(chosen) < N_OPTIONS:
            continue  # too few objects of this relation that differ in every language
        order = sorted(chosen, key=lambda other: seeded_rank(id, other, seed=1))
        for tag in facts.languages:
            own = facts.facts(tag)
            items.append(
                {"id": id, "language": tag, "question": own[id].asked.text.strip(),
                 "options": [own[other].objects[0] for other in order],
                 "gold": order.index(id), "kind": relation}
            )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("questions", questions), ("items", items)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _apart(facts, ids) -> bool:
    """Whether no object of one is an object of another."""
    objects = [text.casefold() for id in ids for text in facts[id].objects]
    return len(set(objects)) == len(objects)


if __name__ == "__main__":
    write_data(FOLDER)
    main(["--config", str(Path(__file__).with_name("config.yaml")), "align", *sys.argv[1:]])
