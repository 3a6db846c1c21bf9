"""What steering did to each item's answer, and what that comes to over items."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from xlens.consistency.per_item import unit_ranks
from xlens.lengths import compared
from xlens.stats import Resampling, bootstrap, holm, random_signs
from xlens.steering import EFFECTS

_CELL = ["method", "band", "strength"]


def items_table(scores: pd.DataFrame, gold: Mapping[str, int], *, by: str) -> pd.DataFrame:
    """One row per cell and item: `method band strength id values said right gold_nll`."""
    rows: list[tuple[object, ...]] = []
    scores = scores.assign(score=compared(scores, by)).sort_values("candidate", kind="stable")
    for (method, band, strength, id), mine in scores.groupby([*_CELL, "id"], sort=False):
        values = mine["score"].to_numpy(float)
        right = mine.loc[mine["candidate"] == gold[str(id)]].iloc[0]
        said = int(values.argmax())
        rows.append(
            (
                method,
                band,
                strength,
                id,
                values,
                said,
                float(said == gold[str(id)]),
                -float(right["mean_logprob"]),
            )
        )
    columns = [*_CELL, "id", "values", "said", "right", "gold_nll"]
    return pd.DataFrame(rows, columns=columns)


def effects(items: pd.DataFrame, pivot: pd.DataFrame) -> pd.DataFrame:
    """Every metric item by item, against the unsteered answers in the target language.

    NaN where a metric isn't defined: transfer where the target language is wrong, say.
    """
    plain = pivot[pivot["method"] == "none"].set_index("id")
    there = plain.loc[items["id"]]
    rho = [
        float((unit_ranks(mine[None]) * unit_ranks(other[None])).sum())
        for mine, other in zip(items["values"], there["values"], strict=True)
    ]
    right = there["right"].to_numpy(float)
    same = (items["said"].to_numpy() == there["said"].to_numpy()).astype(float)
    return items[[*_CELL, "id"]].assign(
        accuracy=items["right"].to_numpy(float),
        consistency=rho,
        transfer=np.where(right == 1, items["right"], np.nan),
        same_wrong=np.where(right == 0, same, np.nan),
        gold_nll=items["gold_nll"].to_numpy(float),
    )


def choose(dev: pd.DataFrame) -> pd.DataFrame:
    """Each method's cell with the best mean accuracy over languages.

    Ties go to the higher consistency, then to the weaker push, then to the lower layer.
    """
    wide = dev.pivot_table(index=_CELL, columns="metric", values="value", sort=False)
    plain = float(wide.loc[[i for i in wide.index if i[0] == "none"], "accuracy"].iloc[0])
    table = wide.reset_index()
    table = table[table["method"] != "none"].assign(
        force=lambda t: t["strength"].abs(),
        lowest=lambda t: [min(map(int, str(band).split("-"))) for band in t["band"]],
    )
    best = table.sort_values(
        ["accuracy", "consistency", "force", "lowest"], ascending=[False, False, True, True]
    ).drop_duplicates("method")
    found = best[_CELL].assign(dev_accuracy=best["accuracy"], dev_gain=best["accuracy"] - plain)
    order = list(dict.fromkeys(table["method"]))
    return found.set_index("method").loc[order].reset_index()


_RATES = frozenset({"accuracy", "transfer", "same_wrong"})


def summarised(
    items: pd.DataFrame, *, resampling: Resampling = Resampling(), n_flips: int = 2000
) -> pd.DataFrame:
    """Means over items and paired changes against no steering, with intervals and tests.

    Items of one `paragraph`, and of one `header`, are drawn together. The draws of a control are
    one condition: their items' values are averaged first. `p` is of the change, against random
    signs of the items' own; `p_adjusted` is Holm's over all languages and methods that were looked
    at, each control among its like.
    """
    given = items.drop_duplicates("id")
    of = given["paragraph" if "paragraph" in given else "id"]
    belonging = {"paragraph": dict(zip(given["id"], of, strict=True))}
    if "header" in given:
        belonging["header"] = dict(zip(given["id"], given["header"], strict=True))
    names = items["condition"].str.replace(r" \d+$", "", regex=True)
    keys = ["language", "vector", "condition"]
    each = items.assign(condition=names).groupby([*keys, "id"], sort=False)[list(EFFECTS)].mean()
    rows: list[dict[str, object]] = []
    for (language, vector), mine in each.groupby(["language", "vector"], sort=False):
        wide = mine.droplevel(["language", "vector"]).unstack("condition")
        belongs = {name: wide.index.map(known) for name, known in belonging.items()}
        columns: list[tuple[str, str]] = [(str(m), str(c)) for m, c in wide.columns]
        values = wide.to_numpy(float)
        plain = [columns.index((metric, "none")) for metric, _ in columns]
        clusters = resampling.codes(pd.DataFrame({"id": wide.index, **belongs}))
        means, changes = (
            bootstrap(table, clusters=clusters, resampling=resampling, bounds=(least, most))
            for table, (least, most) in (
                (values, np.transpose([_bounds(metric) for metric, _ in columns])),
                (values - values[:, plain], np.transpose([_bounds(m, -1.0) for m, _ in columns])),
            )
        )
        signs = random_signs(len(changes.sums.sums), n_flips, resampling.seed)
        flipped = np.abs(changes.sums.flipped(signs))
        p = (flipped >= flipped[0] * (1 - 1e-9)).mean(axis=0)
        (low, high), (below, above) = means.interval(), changes.interval()
        itself = [condition == "none" for _, condition in columns]
        below, above = np.where(itself, 0.0, below), np.where(itself, 0.0, above)
        p = np.where(itself, np.nan, p)
        for at, (metric, condition) in enumerate(columns):
            rows.append(
                {
                    "language": language,
                    "vector": vector,
                    "condition": condition,
                    "metric": metric,
                    "value": means.mean[at],
                    "low": low[at],
                    "high": high[at],
                    "change": changes.mean[at],
                    "change_low": below[at],
                    "change_high": above[at],
                    "p": p[at],
                    "n": int(means.n[at]),
                }
            )
    table = pd.DataFrame(rows)
    control = table["condition"].str.partition(",")[2]
    by = [control, "metric", table["language"] == table["vector"]]
    for _, mine in table.groupby(by, sort=False):
        table.loc[mine.index, "p_adjusted"] = holm(mine["p"].to_numpy(float))
    return table


def _bounds(metric: str, least: float = 0.0) -> tuple[float, float]:
    if metric in _RATES:
        return least, 1.0
    return (-np.inf, np.inf)
