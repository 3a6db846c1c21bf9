"""What the lens found: per prompt (`LensResult`), over prompts (`LensSummary`), for one prompt."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from xlens.lens.identify import UNKNOWN
from xlens.results import Result
from xlens.stats import Bootstrap, bootstrap


@dataclass(frozen=True, kw_only=True)
class LensSummary(Result):
    """Means over prompts with percentile bootstrap intervals: what a figure draws.

    Attributes:
        curves: `layer language mean low high n`: probability of each language's word.
        states: `layer quantity mean low high n`: `entropy` (bits), `kl` (bits), `energy`.
        composition: `layer language share`: languages of the top-k tokens; `unknown` included,
            shares of a layer sum to 1.
        landmarks: `name value low high n`: `pivot_peak_prob`, `pivot_peak_layer` (where the pivot
            language's mean probability is highest), `crossover_layer` (first layer after that peak
            from which on the target language's mean stays above the pivot's; NaN if the pivot
            never leads or the target never overtakes), `final_target_prob`, `final_pivot_prob`;
            where the prompt's own language is read too, `source_peak_prob` and
            `source_peak_layer`; and with `shuffled`, `target_over_shuffled`: what the right word
            has at the output more than another prompt's word, prompt by prompt.
    """

    curves: pd.DataFrame
    states: pd.DataFrame
    composition: pd.DataFrame
    landmarks: pd.DataFrame
    n_layers: int
    source: str
    target: str
    pivot: str
    task: str
    confidence: float

    def to_frame(self) -> pd.DataFrame:
        """`curves`."""
        return self.curves

    def landmark(self, name: str) -> dict[str, float]:
        """`value`, `low`, `high` and `n` of one landmark."""
        row = self.landmarks[self.landmarks["name"] == name]
        return {key: float(row[key].iloc[0]) for key in ("value", "low", "high", "n")}


@dataclass(frozen=True, kw_only=True)
class LensResult(Result):
    """The logit lens over prompts of one language pair and task.

    Attributes:
        rows: One row per prompt, layer and language: `prompt id layer language prob logprob rank
            n_tokens`. `logprob` in nats; `rank` is 1 + the items more probable than the word's
            best token, NaN where the reading has none; `n_tokens` the size of the token set.
        states: One row per prompt and layer: `entropy` and `kl` (final layer || this one) in
            bits, `energy`.
        top: One row per prompt, layer and place k: `token label prob language`.
        source: Language of the word shown.
        target: Language asked for.
        pivot: The language suspected inside.
        task: `translation`, `repetition` or `cloze`.
        reading: `prefixes`, `first` or `whole`.
    """

    rows: pd.DataFrame
    states: pd.DataFrame
    top: pd.DataFrame
    n_layers: int
    source: str
    target: str
    pivot: str
    task: str
    reading: str

    def to_frame(self) -> pd.DataFrame:
        """`rows` with the layer's `entropy`, `kl` and `energy` beside them."""
        return self.rows.merge(self.states, on=["prompt", "id", "layer"], how="left")

    def summary(
        self,
        *,
        shuffled: "LensResult | None" = None,
        confidence: float = 0.95,
        n_boot: int = 1000,
        seed: int = 0,
    ) -> LensSummary:
        """Means over prompts with percentile bootstrap intervals (prompts drawn whole).

        Args:
            shuffled: The same states read for other prompts' words: whether the task is done at
                all is then told prompt by prompt, where two intervals side by side can't tell.
            confidence: Of the intervals.
            n_boot: Resamples.
            seed: Of these.
        """
        languages = list(dict.fromkeys(self.rows["language"]))
        layers = sorted(self.rows["layer"].unique())
        wide = self.rows.pivot(index="prompt", columns=["language", "layer"], values="prob")
        wide = wide.reindex(columns=pd.MultiIndex.from_product([languages, layers]))

        def resample(values: np.ndarray) -> Bootstrap:
            return bootstrap(values, confidence=confidence, n_boot=n_boot, seed=seed)

        boot = resample(wide.to_numpy(dtype=float))
        curves = _intervals(boot, pd.MultiIndex.from_product([languages, layers]), "language")
        quantities = ["entropy", "kl", "energy"]
        deep = self.states.pivot(index="prompt", columns="layer", values=quantities)
        states = _intervals(
            resample(deep.to_numpy(dtype=float)),
            pd.MultiIndex.from_product([quantities, deep.columns.levels[1]]),  # type: ignore[union-attr]
            "quantity",
        )
        landmarks = self._landmarks(boot, languages, np.array(layers))
        if shuffled is not None:
            more = resample(self._more_than(shuffled, int(layers[-1]))[:, None])
            low, high = more.interval()
            row = {"name": "target_over_shuffled", "value": more.mean[0], "share_of_draws": 1.0}
            row |= {"low": low[0], "high": high[0], "n": more.n[0]}
            landmarks = pd.concat([landmarks, pd.DataFrame([row])], ignore_index=True)
        return LensSummary(
            provenance={**self.provenance, "n_boot": n_boot, "bootstrap_seed": seed},
            curves=curves,
            states=states,
            composition=self._composition(),
            landmarks=landmarks,
            n_layers=self.n_layers,
            source=self.source,
            target=self.target,
            pivot=self.pivot,
            task=self.task,
            confidence=confidence,
        )

    def _more_than(self, shuffled: "LensResult", layer: int) -> Float[np.ndarray, " prompt"]:
        """By how much the target's word beats another prompt's, for every prompt of both."""
        mine, other = (
            found.rows[(found.rows["layer"] == layer) & (found.rows["language"] == self.target)]
            .set_index("id")["prob"]
            .astype(float)
            for found in (self, shuffled)
        )
        return (mine - other.reindex(mine.index)).dropna().to_numpy()

    def _composition(self) -> pd.DataFrame:
        counts = self.top.groupby(["layer", "language"]).size().unstack(fill_value=0)
        shares = counts.div(counts.sum(axis=1), axis=0)
        order = [c for c in (self.pivot, self.target, self.source) if c in shares.columns]
        rest = sorted(set(shares.columns) - set(order) - {UNKNOWN})
        columns = list(dict.fromkeys([*order, *rest, *({UNKNOWN} & set(shares.columns))]))
        long = shares[columns].reset_index().melt("layer", value_name="share")
        return long.sort_values("layer", kind="stable", ignore_index=True)

    def _landmarks(self, boot: Bootstrap, languages: list[str], layers: np.ndarray) -> pd.DataFrame:
        every = np.vstack([boot.mean, boot.draws]).reshape(-1, len(languages), len(layers))
        n = int(boot.n.max())
        target = every[:, languages.index(self.target)]
        rows: list[tuple[str, np.ndarray]] = [("final_target_prob", target[:, -1])]
        if self.source in languages and self.source not in (self.target, self.pivot):
            shown = every[:, languages.index(self.source)]
            rows += [
                ("source_peak_prob", shown.max(axis=1)),
                ("source_peak_layer", layers[shown.argmax(axis=1)].astype(float)),
            ]
        if self.pivot in languages and self.pivot != self.target:
            pivot = every[:, languages.index(self.pivot)]
            peak = pivot.argmax(axis=1)
            crossing = _crossover(pivot, target, peak)
            rows += [
                ("final_pivot_prob", pivot[:, -1]),
                ("pivot_peak_prob", pivot.max(axis=1)),
                ("pivot_peak_layer", layers[peak].astype(float)),
                (
                    "crossover_layer",
                    np.where(crossing < 0, np.nan, layers[np.maximum(crossing, 0)]),
                ),
            ]
        table: list[dict[str, str | float | int]] = []
        for name, values in rows:
            draws = values[1:]
            low, high = boot.interval(draws) if np.isfinite(draws).any() else (np.nan, np.nan)
            table.append(
                {
                    "name": name,
                    "value": float(values[0]),
                    "low": float(low),
                    "high": float(high),
                    "n": n,
                    "share_of_draws": float(np.isfinite(draws).mean()),
                }
            )
        return pd.DataFrame(table)


@dataclass(frozen=True, kw_only=True)
class TraceResult(Result):
    """The classic table of one prompt: layer × position, the most probable token in each cell.

    Attributes:
        cells: `layer pos token label prob entropy` (bits).
        tokens: `pos token label` of the prompt itself.
    """

    cells: pd.DataFrame
    tokens: pd.DataFrame
    n_layers: int

    def to_frame(self) -> pd.DataFrame:
        """`cells`."""
        return self.cells

    def last(self, n: int) -> "TraceResult":
        """The last `n` positions only."""
        first = int(self.tokens["pos"].max()) - n + 1
        return replace(
            self,
            cells=self.cells[self.cells["pos"] >= first].reset_index(drop=True),
            tokens=self.tokens[self.tokens["pos"] >= first].reset_index(drop=True),
        )


def _crossover(pivot: np.ndarray, target: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Per draw the column after the pivot's peak from which target stays above; -1 if none."""
    ahead = target > pivot
    stays = np.logical_and.accumulate(ahead[:, ::-1], axis=1)[:, ::-1]
    after = np.arange(pivot.shape[1]) > peak[:, None]
    led = ~ahead[np.arange(len(peak)), peak]
    found = stays & after & led[:, None]
    return np.where(found.any(axis=1), found.argmax(axis=1), -1)


def _intervals(boot: Bootstrap, columns: pd.MultiIndex, name: str) -> pd.DataFrame:
    low, high = boot.interval()
    frame = pd.DataFrame(
        {"mean": boot.mean, "low": low, "high": high, "n": boot.n},
        index=columns.set_names([name, "layer"]),
    )
    return frame.reset_index()
