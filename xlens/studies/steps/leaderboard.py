"""Several models on the same questions: who reads best, and what post-training changed."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from xlens.errors import InputError
from xlens.results import Result, analysed
from xlens.stats import Resampling, bootstrap
from xlens.studies.reading import ReadingStudy
from xlens.studies.study import Parts
from xlens.tasks.xmrc import ERRORS, ReadingResult
from xlens.tasks.xmrc.answers import KEY
from xlens.tasks.xmrc.tables import SETTINGS, clusters_of

RULE = (
    "Models are a pair, base and post-trained, where they are named so, or where the names differ "
    "by an ending -it, -Instruct or -chat only."
)
BY_CHANCE = "by chance"
_POST = re.compile(r"[-_](it|instruct|chat)$", re.IGNORECASE)
_ORDER = ("en-x", "x-x", "x-en", "en-en")


@dataclass(frozen=True, kw_only=True)
class Leaderboard(Result):
    """Models side by side.

    Attributes:
        setting: By whose mean F1 over languages they are sorted: `en-x` if all were asked it.
        table: One row per model, the best first: `model base` (of its pair), `em f1` with `_low`
            and `_high`, `ratio` (none where the pivot's F1 is no better than with exchanged texts),
            `f1_pivot` (all in the pivot; by chance `chance_pivot`), `control` (F1 with exchanged
            texts, in that setting), `chance` (F1 of right answers to other questions), `truncated`
            (share of answers cut off by the limit on their length), `text_cut` (share of prompts
            whose text was cut to fit into the model), all means over languages, `n` (questions in
            a language) and `common` (of these, how many every model was asked), both of the
            language where they differ most.
        languages: `model language f1 low high`, in that setting; first, under the name `by
            chance`, what right answers to other questions score.
        errors: `model kind share n of baseline`: shares of the wrong answers in that setting, all
            languages together, and how often the same rules say so of right answers to other
            questions.
        pairs: `base post f1_base f1_post difference low high n`: what post-training changed, on the
            questions that both answered; intervals over paragraphs.
    """

    setting: str
    table: pd.DataFrame
    languages: pd.DataFrame
    errors: pd.DataFrame
    pairs: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """`table`."""
        return self.table


def find_pairs(
    names: Sequence[str], given: Sequence[tuple[str, str]] = ()
) -> tuple[tuple[str, str], ...]:
    """Base and post-trained models among `names`: those given, and by `RULE`.

    Raises:
        ValueError: a name that isn't there, or a pair of one model.
    """
    for base, post in given:
        if unknown := sorted({base, post} - set(names)):
            raise InputError(f"A pair names {unknown}; the models are {list(names)}.")
        if base == post:
            raise InputError(f"{base!r} can't be a pair with itself; name base and post-trained.")
    by_rule = ((_POST.sub("", name), name) for name in names if _POST.search(name))
    return tuple(dict.fromkeys([*given, *(pair for pair in by_rule if pair[0] in names)]))


def leaderboard(
    results: Mapping[str, ReadingResult],
    *,
    pairs: Sequence[tuple[str, str]] = (),
    resampling: Resampling = Resampling(),
) -> Leaderboard:
    """Compare models that were asked the same.

    Each model's scores are of all questions that it was asked; where `n` and `common` differ, some
    prompts were too long for another model, say, and rows are of different questions.

    Args:
        results: By the models' names.
        pairs: Base and post-trained, from `find_pairs`.
        resampling: Of the intervals of pairs.

    Raises:
        ValueError: no models, or none of the settings common to all.
    """
    asked = [set(result.summary["setting"]) for result in results.values()]
    common = set.intersection(*asked) if asked else set[str]()
    setting = next((name for name in _ORDER if name in common), None)
    if setting is None:
        raise InputError(
            f"{list(results)} have none of the settings {', '.join(SETTINGS)} in common; ask all "
            "of them the same."
        )
    asked_of = {name: _questions(result, setting) for name, result in results.items()}
    of_all = set.intersection(*asked_of.values())
    rows = [
        _row(name, result, setting) | _counts(asked_of[name], of_all)
        for name, result in results.items()
    ]
    table = pd.DataFrame(rows).sort_values("f1", ascending=False, kind="stable")
    bases = {post: base for base, post in pairs}
    table.insert(1, "base", [bases.get(name, "") for name in table["model"]])
    ranked = [str(name) for name in table["model"]]
    compared = [_pair(base, post, results, setting, resampling) for base, post in pairs]
    return Leaderboard(
        provenance=analysed(
            {"models": {name: result.model for name, result in results.items()}},
            "leaderboard",
            {"rule": RULE, **resampling.provenance()},
        ),
        setting=setting,
        table=table.reset_index(drop=True),
        languages=pd.concat(
            [
                _chance([results[name] for name in ranked], setting),
                *(_languages(n, results[n], setting) for n in ranked),
            ],
            ignore_index=True,
        ),
        errors=pd.concat([_errors(n, results[n], setting) for n in ranked], ignore_index=True),
        pairs=pd.DataFrame(
            compared,
            columns=["base", "post", "f1_base", "f1_post", "difference", "low", "high", "n"],
        ),
    )


def compared(
    models: Mapping[str, Parts], study: ReadingStudy, folders: Mapping[str, str]
) -> Leaderboard | None:
    """A run's models side by side; None where no setting is common to all.

    Pairs of base and post-trained models are those that were named and those by name.

    Args:
        models: The parts of each, by the name of its folder.
        study: What was asked.
        folders: Of the models, by name.
    """
    results = {name: part for name, parts in models.items() if _is(part := parts["scores"])}
    shared = [set(result.summary["setting"]) for result in results.values()]
    if not set.intersection(*shared):
        return None
    pairs = find_pairs(list(results), given_pairs(study.pair, folders))
    return leaderboard(results, pairs=pairs, resampling=study.resampling)


def _is(part: Result) -> TypeGuard[ReadingResult]:
    return isinstance(part, ReadingResult)


def given_pairs(texts: Sequence[str], folders: Mapping[str, str]) -> list[tuple[str, str]]:
    """`BASE:POST` as folders of results; names as on the command line, which may have a colon.

    Raises:
        ValueError: not two of the models.
    """
    found: list[tuple[str, str]] = []
    for text in texts:
        parts = text.split(":")
        cuts = ((":".join(parts[:n]), ":".join(parts[n:])) for n in range(1, len(parts)))
        pair = next((cut for cut in cuts if set(cut) <= set(folders)), None)
        if pair is None:
            raise InputError(
                f"--pair {text!r}: give BASE:POST, two of the models {', '.join(folders)}."
            )
        found.append((folders[pair[0]], folders[pair[1]]))
    return found


def language_of(row: Mapping[Any, Any], pivot: str) -> str:
    """The language of a cell that isn't the pivot, the question's first; or the pivot."""
    tags = (str(row["question_language"]), str(row["context_language"]))
    return next((tag for tag in tags if tag != pivot), pivot)


def _row(name: str, result: ReadingResult, setting: str) -> dict[str, Any]:
    def mean(metric: str, of: str) -> dict[Any, Any]:
        table = result.summary
        rows = table[(table["metric"] == metric) & (table["setting"] == of)].to_dict("records")
        return rows[0] if rows else {}

    em, f1 = mean("em", setting), mean("f1", setting)
    cells = _cells(result.scores, setting, control=True)
    exchanged = cells[cells["metric"] == "f1"]["value"]
    own = _cells(result.scores, setting)
    own = own[own["metric"] == "f1"]
    return {
        "model": name,
        **{"em": em["value"], "em_low": em["low"], "em_high": em["high"]},
        **{"f1": f1["value"], "f1_low": f1["low"], "f1_high": f1["high"]},
        "ratio": f1["ratio"] if result.reads else np.nan,
        "f1_pivot": mean("f1", "en-en").get("value", np.nan),
        "chance_pivot": mean("f1", "en-en").get("chance", np.nan),
        "control": float(exchanged.mean()) if len(exchanged) else np.nan,
        **{name: float(own[name].mean()) for name in ("chance", "truncated", "text_cut")},
    }


def _questions(result: ReadingResult, setting: str) -> set[tuple[Any, ...]]:
    """Cell and id of every question of a setting."""
    return set(_items(result, setting)[[*KEY, "id"]].itertuples(index=False, name=None))


def _counts(mine: set[tuple[Any, ...]], of_all: set[tuple[Any, ...]]) -> dict[str, int]:
    """Questions in a language, and those of them that every model was asked."""
    own, common = (Counter(key[:-1] for key in keys) for keys in (mine, of_all))
    cell = max(own, key=lambda cell: (own[cell] - common[cell], -own[cell]))
    return {"n": own[cell], "common": common[cell]}


def _languages(name: str, result: ReadingResult, setting: str) -> pd.DataFrame:
    cells = _cells(result.scores, setting)
    rows = cells[cells["metric"] == "f1"].to_dict("records")
    return pd.DataFrame(
        {
            "model": name,
            "language": [language_of(row, result.pivot) for row in rows],
            "f1": [row["value"] for row in rows],
            "low": [row["low"] for row in rows],
            "high": [row["high"] for row in rows],
        }
    )


def _chance(results: Sequence[ReadingResult], setting: str) -> pd.DataFrame:
    """By language, what stands beside every model's F1."""
    levels: dict[str, float] = {}
    for result in results:
        cells = _cells(result.scores, setting)
        for row in cells[cells["metric"] == "f1"].to_dict("records"):
            levels.setdefault(language_of(row, result.pivot), row["chance"])
    return pd.DataFrame(
        {
            "model": BY_CHANCE,
            "language": list(levels),
            "f1": list(levels.values()),
            "low": np.nan,
            "high": np.nan,
        }
    )


def _errors(name: str, result: ReadingResult, setting: str) -> pd.DataFrame:
    items = _items(result, setting)
    wrong = items[items["wrong"]]
    counts = [int((wrong["kind"] == kind).sum()) for kind in ERRORS]
    whole = len(wrong)
    golds = _cells(result.errors, setting).groupby("kind")["baseline"].mean()
    return pd.DataFrame(
        {
            "model": name,
            "kind": list(ERRORS),
            "share": [n / whole if whole else np.nan for n in counts],
            "n": counts,
            "of": whole,
            "baseline": golds.reindex(list(ERRORS)).to_numpy(float),
        }
    )


def _pair(
    base: str,
    post: str,
    results: Mapping[str, ReadingResult],
    setting: str,
    resampling: Resampling,
) -> dict[str, Any]:
    keys = [*KEY, "id", "paragraph"]
    # Older results, and those of chats without demonstrations, have no headers.
    both = [
        _items(results[name], setting)
        .reindex(columns=[*keys, "f1", "header"])
        .rename(columns={"f1": f"f1_{which}", "header": f"header_{which}"})
        for name, which in ((base, "base"), (post, "post"))
    ]
    joined = both[0].merge(both[1], on=keys)
    row: dict[str, Any] = {"base": base, "post": post, "n": joined["id"].nunique()}
    if joined.empty:
        names = ("f1_base", "f1_post", "difference", "low", "high")
        return row | dict.fromkeys(names, np.nan)
    joined["difference"] = joined["f1_post"] - joined["f1_base"]
    by_cell: dict[str, pd.DataFrame] = {
        name: joined.pivot(index=["id", "paragraph"], columns=list(KEY), values=name)
        for name in ("f1_base", "f1_post", "difference")
    }
    wide = by_cell["difference"]
    found = bootstrap(
        wide.to_numpy(),
        clusters=clusters_of(
            wide.index.to_frame(index=False), joined, resampling, "header_base", "header_post"
        ),
        resampling=resampling,
        bounds=(-1, 1),
    )
    low, high = found.interval(lambda m: m.mean(axis=-1), range(len(found.mean)))
    # Each language counts the same, as in the table.
    means = {name: float(np.nanmean(table.mean(axis=0))) for name, table in by_cell.items()}
    return row | means | {"low": float(low), "high": float(high)}


def _items(result: ReadingResult, setting: str) -> pd.DataFrame:
    cells = _cells(result.scores, setting)[list(KEY)].drop_duplicates()
    return result.items.merge(cells, on=list(KEY))


def _cells(scores: pd.DataFrame, setting: str, *, control: bool = False) -> pd.DataFrame:
    return scores[(scores["setting"] == setting) & ((scores["control"] != "") == control)]
