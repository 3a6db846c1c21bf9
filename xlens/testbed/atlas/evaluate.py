"""What the atlas can do, measured: every figure of the model card."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from xlens.engine import harvest
from xlens.lens import logit_lens, target_sets
from xlens.models import HookedModel
from xlens.results import Result
from xlens.tasks.words import WordList, answers, translation_prompts
from xlens.testbed.atlas import asking, statistics
from xlens.testbed.atlas.build import DATA
from xlens.testbed.atlas.manifest import Manifest
from xlens.testbed.atlas.wordings import pair_wordings
from xlens.testbed.atlas.world import PIVOT, World

# Pairs without the pivot, of different scripts.
LENS_PAIRS = (("de", "ru"), ("fr", "zh-Hans"), ("ru", "ar"), ("hi", "es"))


@dataclass(frozen=True, kw_only=True)
class AtlasReport(Result):
    """The model card's figures. Shares come with `n` and 95 % intervals (`low`, `high`).

    Intervals draw whole facts, words or territories, as one that is asked in several languages is
    not several.

    Attributes:
        recall: Core facts by occurrences: `languages least most n share low high`.
        frequent: Facts stated 50 times and more: `language n share low high`.
        sets: Recall by set and wording: `wording set n share low high`.
        control: Facts that never appear, by language and by relation: `of n share chance p`.
        transfer: See `statistics.transfer`.
        series: The checkpoints of the series and the final model: `revision what n share low high`;
            `what` is a bin of documents (core facts, all languages), `hidden` or `control`.
        relations: Hidden and control facts by relation: `set relation n share low high`.
        words: Translations: `what language n share low high`; `language` is the target.
        reading: Reading comprehension: `model about context language n share low high`, and the
            shares of answers by kind (`answered_gold`, `_context`, `_rival`, `_recall`, `_other`).
        lens: Mean probability by layer: `source target layer language prob`, and `kl` (bits) from
            the final layer.
    """

    recall: pd.DataFrame
    frequent: pd.DataFrame
    sets: pd.DataFrame
    control: pd.DataFrame
    transfer: pd.DataFrame
    series: pd.DataFrame
    relations: pd.DataFrame
    words: pd.DataFrame
    reading: pd.DataFrame
    lens: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`transfer`."""
        return self.transfer


def measure(
    base: HookedModel,
    twin: HookedModel,
    world: World,
    manifest: Manifest,
    *,
    series: Mapping[str, Callable[[], HookedModel]] | None = None,
    n_pairs: int = 40,
    n_readings: int = 200,
    progress: bool = True,
) -> AtlasReport:
    """Measure the base model and its post-trained twin against the ground truth.

    Args:
        base: `xlens.load("atlas")`.
        twin: `xlens.load("atlas-post")`.
        world: Words and facts.
        manifest: What the corpus said how often.
        series: What loads each earlier checkpoint, by revision, in order.
        n_pairs: Translations asked per pair of languages, of those in the text.
        n_readings: Readings per language of the question.
        progress: Show bars.
    """
    facts = asking.ask_facts(base, manifest, progress=progress)
    turned = asking.ask_facts(base, manifest, wording="label-turned", progress=progress)
    asked = asking.hideable(facts)
    steps = {
        revision: asking.ask_facts(loaded(), manifest, progress=progress)
        for revision, loaded in (series or {}).items()
    }
    return AtlasReport(
        provenance={
            "base": base.provenance(),
            "twin": twin.provenance(),
            "n_parameters": sum(p.numel() for p in base.hf_model.parameters()),
            "world": world.source,
            "seed": manifest.design.seed,
            "n_pairs": n_pairs,
            "n_readings": n_readings,
        },
        recall=statistics.by_dose(facts),
        frequent=statistics.frequent(facts),
        sets=_sets({"seen": facts, "held out": turned}),
        control=_control(asked),
        transfer=statistics.transfer(asked),
        series=_series({**steps, "final": facts}),
        relations=_relations(asked),
        words=_words(base, manifest, n_pairs, progress),
        reading=_readings({"base": base, "twin": twin}, world, manifest, n_readings, progress),
        lens=_lens(base, world, progress),
    )


def shipped_report() -> AtlasReport:
    """The figures of the shipped weights, as measured when they were made."""
    return AtlasReport.load(DATA / "report")


def _sets(by_wording: dict[str, pd.DataFrame]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for wording, facts in by_wording.items():
        label = facts.set.where(~facts.hidden, "hidden")
        for name, cells in facts.groupby(label, sort=False):
            rows.append({"wording": wording, "set": name, **statistics.share(cells)})
    return pd.DataFrame(rows)


def _control(facts: pd.DataFrame) -> pd.DataFrame:
    absent = facts[facts.set == "control"]
    rows = [
        {"of": name, **statistics.chance(group)}
        for by in ("language", "relation")
        for name, group in absent.groupby(by, sort=False)
    ]
    return pd.DataFrame([*rows, {"of": "all", **statistics.chance(absent)}])


def _series(by_revision: dict[str, pd.DataFrame]) -> pd.DataFrame:
    tables: list[pd.DataFrame] = []
    for revision, facts in by_revision.items():
        asked = asking.hideable(facts)
        doses = statistics.by_dose(facts)
        doses = doses[doses.languages == "all"]
        bins = [f"{a}–{b}" for a, b in zip(doses.least, doses.most, strict=True)]
        sets = pd.DataFrame(
            [
                {"what": "hidden", **statistics.share(asked[asked.hidden])},
                {"what": "control", **statistics.share(asked[asked.set == "control"])},
            ]
        )
        found = pd.concat([sets, doses.assign(what=bins)[list(sets.columns)]])
        tables.append(found.assign(revision=revision))
    return pd.concat(tables, ignore_index=True)


def _relations(facts: pd.DataFrame) -> pd.DataFrame:
    kinds = {"hidden": facts[facts.hidden], "control": facts[facts.set == "control"]}
    rows = [
        {"set": kind, "relation": relation, **statistics.share(cells)}
        for kind, table in kinds.items()
        for relation, cells in table.groupby("relation", sort=False)
    ]
    return pd.DataFrame(rows)


def _words(model: HookedModel, manifest: Manifest, n: int, progress: bool) -> pd.DataFrame:
    pairs = manifest.pairs
    seen, out = pairs[~pairs.held_out], pairs[pairs.held_out]
    groups = seen.groupby(["source", "target"], sort=False)
    sample = groups.sample(n, random_state=manifest.design.seed)
    differ = out[~out.identical]
    unseen = [wording for wording in pair_wordings() if wording.held_out]
    tables: list[pd.DataFrame] = []
    for what, table, wording in (
        ("seen pairs, seen wording", sample, "pair-0"),
        *((f"seen pairs, held-out wording {w.name}", sample, w.name) for w in unseen),
        ("held-out pairs", out, "pair-0"),
        ("held-out pairs whose words differ", differ, "pair-0"),
    ):
        found = asking.ask_pairs(model, table, wording=wording, progress=progress)
        shares = statistics.per_language(found, "word", "target", what=what)
        tables.append(shares.rename(columns={"target": "language"}))
    return pd.concat(tables, ignore_index=True)


def _readings(
    models: dict[str, HookedModel], world: World, manifest: Manifest, n: int, progress: bool
) -> pd.DataFrame:
    kinds = ["gold", "context", "rival", "recall", "other"]
    tables: list[pd.DataFrame] = []
    for several, same in product((False, True), (True, False)):
        sets = asking.reading_sets(world, manifest, n=n, same_language=same, several=several)
        for name, model in models.items():
            asked = [
                asking.ask_readings(model, made, language, progress=progress)
                for language, made in sets.items()
                if same or language != PIVOT
            ]
            found = pd.concat(asked, ignore_index=True)
            labels = {
                "model": name,
                "about": "several territories" if several else "one territory",
                "context": "same language" if same else "English",
            }
            shares = statistics.per_language(found, "subject", **labels)
            dealt = pd.crosstab(found.language, found.kind, normalize="index")
            dealt.loc["all"] = dealt.mean()
            dealt = dealt.reindex(columns=kinds, fill_value=0.0).rename_axis(index="language")
            dealt = dealt.add_prefix("answered_").reset_index()
            tables.append(shares.merge(dealt, on="language"))
    return pd.concat(tables, ignore_index=True)


def _lens(model: HookedModel, world: World, progress: bool) -> pd.DataFrame:
    """Translation without the pivot in the prompt: whose word does each layer hold?"""
    kinds = ("territory", "language", "month", "weekday", "unit")
    words = {id: names for id, names in world.words.items() if id.split("/")[0] in kinds}
    listed = WordList(pd.DataFrame.from_dict(words, orient="index"), world.source)
    tables: list[pd.DataFrame] = []
    for source, target in LENS_PAIRS:
        prompts = translation_prompts(listed, source, target, shots=2)
        said = answers(listed, prompts, [target, PIVOT, source])
        targets = target_sets(model, said, languages=[target, PIVOT], extra=[source])
        states = harvest(model, prompts.select(ids=targets.ids), slots="last", progress=progress)
        result = logit_lens(states, model, targets, pivot=PIVOT, progress=progress)
        means = result.rows.groupby(["layer", "language"], sort=False).prob.mean().reset_index()
        kl = result.states.groupby("layer").kl.mean()
        means = means.assign(source=source, target=target, n=len(targets.ids))
        tables.append(means.assign(kl=np.asarray(kl.reindex(means.layer))))
    return pd.concat(tables, ignore_index=True)
