"""The atlas's facts as a task: what its text stated how often, asked in a wording of the text."""

from functools import lru_cache

from xlens.tasks.facts import Facts
from xlens.testbed.atlas.build import shipped_manifest
from xlens.testbed.atlas.manifest import Manifest
from xlens.testbed.atlas.wordings import fact_wording

WORDING = "statement"


@lru_cache(maxsize=1)
def atlas_facts() -> Facts:
    """All facts of the shipped weights, with the documents that state them in each language.

    The group of a fact is its set (`core`, `transfer`, `control`, `anchor`), or `hidden` in a
    language from which a transfer fact was kept. Ask it without demonstrations: none of its
    documents has any.

    Raises:
        ValueError: the installed CLDR gives other facts than those that the weights read.
    """
    world, manifest = shipped_manifest()
    return facts_of(manifest, f"the atlas ({world.source})")


def facts_of(manifest: Manifest, source: str) -> Facts:
    """The facts of a manifest."""
    table = manifest.facts
    asked = {
        (relation, language): fact_wording(str(relation), str(language), WORDING)
        for relation, language in table[["relation", "language"]].drop_duplicates().to_numpy()
    }
    templates = [
        f"{asked[key].before.replace('{s}', '<subject>')}<mask>{asked[key].after}"
        for key in zip(table["relation"], table["language"], strict=True)
    ]
    frame = table[["language", "relation"]].assign(
        id=table["fact"],
        subject=table["subject_text"],
        objects=table["object_text"],
        template=templates,
        frequency=table["count"],
        group=table["set"].where(~table["hidden"], "hidden"),
    )
    return Facts(frame, source)
