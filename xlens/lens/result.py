"""What the lens found: per prompt (`LensResult`), over prompts (`LensSummary`), for one prompt."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from xlens._renamed import renamed
from xlens.lens.identify import UNKNOWN
from xlens.results import Result, analysed
from xlens.stats import Bootstrap, Resampling, bootstrap, generator, jumping


@dataclass(frozen=True, kw_only=True)
class LensSummary(Result):
    """Means over prompts with intervals: what a figure draws.

    Attributes:
        curves: `layer language mean low high n`: probability of each language's word.
        states: `layer quantity mean low high n`: `entropy` (bits), `kl` (bits), `energy`.
        composition: `layer language share`: languages of the top-k tokens; `unknown` included,
            shares of a layer sum to 1.
        landmarks: `name value low high n share_of_draws`: `pivot_peak_layer` (where the pivot
            language's mean probability is highest), `pivot_peak_prob` (of each half of the prompts
            at the layer where the other half's is highest, since the highest of many means is too
            high), `crossover_layer` (first layer after that peak from which on the target
            language's mean stays above the pivot's; NaN if the pivot never leads or the target
            never overtakes), `final_target_prob`, `final_pivot_prob`; where the prompt's own
            language is read too, `source_peak_prob`, `source_peak_layer` and `source_over_pivot`
            (by how much it has more at its peak than the pivot's at its own, prompt by prompt); and
            with `shuffled`, `target_over_shuffled`: what the right word has at the output more than
            another prompt's word, prompt by prompt.
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
    lens: str = "logit"

    @property
    def highest(self) -> float:
        """The highest mean probability of any language at any layer."""
        return float(self.curves["mean"].max())

    @property
    def n_prompts(self) -> int:
        """The prompts that were asked."""
        return int(self.landmarks["n"].max())

    def to_frame(self) -> pd.DataFrame:
        """`curves`."""
        return self.curves

    def landmark(self, name: str) -> dict[str, float]:
        """`value`, `low`, `high` and `n` of one landmark."""
        row = self.landmarks[self.landmarks["name"] == name]
        return {key: float(row[key].iloc[0]) for key in ("value", "low", "high", "n")}


@renamed(reading="match")
@dataclass(frozen=True, kw_only=True)
class LensResult(Result):
    """The logit lens over prompts of one language pair and task.

    Attributes:
        rows: One row per prompt, layer and language: `prompt id layer language prob logprob rank
            n_tokens`. `logprob` in nats; `rank` is 1 + the items more probable than the word's
            best token, NaN where the reading has none; `n_tokens` the size of the token set. Where
            prompts share demonstrations also `header`, whose prompts are drawn together.
        states: One row per prompt and layer: `entropy` and `kl` (final layer || this one) in
            bits, `energy`.
        top: One row per prompt, layer and place k: `token label prob language`.
        source: Language of the word shown.
        target: Language asked for.
        pivot: The language suspected inside.
        task: `translation`, `repetition` or `cloze`.
        match: `prefixes`, `first` or `whole`.
        lens: Through which states were read: `logit`, `tuned` or `jacobian`.
    """

    rows: pd.DataFrame
    states: pd.DataFrame
    top: pd.DataFrame
    n_layers: int
    source: str
    target: str
    pivot: str
    task: str
    match: str
    lens: str = "logit"

    def to_frame(self) -> pd.DataFrame:
        """`rows` with the layer's `entropy`, `kl` and `energy` beside them."""
        return self.rows.merge(self.states, on=["prompt", "id", "layer"], how="left")

    def summary(
        self,
        *,
        shuffled: "LensResult | None" = None,
        resampling: Resampling = Resampling(),
    ) -> LensSummary:
        """Means over prompts with intervals (prompts, or `resampling.clusters`, drawn whole).

        Args:
            shuffled: The same states read for other prompts' words: whether the task is done at
                all is then told prompt by prompt, where two intervals side by side can't tell.
            resampling: Of the intervals.
        """
        languages = list(dict.fromkeys(self.rows["language"]))
        layers = sorted(self.rows["layer"].unique())
        wide = self.rows.pivot(index="prompt", columns=["language", "layer"], values="prob")
        wide = wide.reindex(columns=pd.MultiIndex.from_product([languages, layers]))

        prompts = self.rows.drop_duplicates("prompt").set_index("prompt").loc[wide.index]
        codes = resampling.codes(prompts)

        def resample(values: np.ndarray) -> Bootstrap:
            return bootstrap(values, clusters=codes, resampling=resampling)

        values = wide.to_numpy(dtype=float)
        boot = resample(values)
        curves = _intervals(boot, pd.MultiIndex.from_product([languages, layers]), "language")
        quantities = ["entropy", "kl", "energy"]
        deep = self.states.pivot(index="prompt", columns="layer", values=quantities)
        states = _intervals(
            resample(deep.to_numpy(dtype=float)),
            pd.MultiIndex.from_product([quantities, deep.columns.levels[1]]),  # type: ignore[union-attr]
            "quantity",
        )
        landmarks = self._landmarks(values, boot, codes, languages, np.array(layers))
        if shuffled is not None:
            over = self._more_than(shuffled, int(layers[-1])).reindex(wide.index)
            more = resample(over.to_numpy(float)[:, None])
            low, high = more.interval()
            row = {"name": "target_over_shuffled", "value": more.mean[0], "share_of_draws": 1.0}
            row |= {"low": low[0], "high": high[0], "n": more.n[0]}
            landmarks = pd.concat([landmarks, pd.DataFrame([row])], ignore_index=True)
        return LensSummary(
            provenance=analysed(self.provenance, "summary", resampling.provenance()),
            curves=curves,
            states=states,
            composition=self._composition(),
            landmarks=landmarks,
            n_layers=self.n_layers,
            source=self.source,
            target=self.target,
            pivot=self.pivot,
            task=self.task,
            confidence=resampling.confidence,
            lens=self.lens,
        )

    def right_at_output(self) -> tuple[int, int]:
        """In how many prompts nothing is more probable at the output than the right word; of all.

        By the word's best token; 0 of 0 where the reading has no ranks, or the last layer is not
        there.
        """
        rows = self.rows[
            (self.rows["layer"] == self.n_layers) & (self.rows["language"] == self.target)
        ].dropna(subset=["rank"])
        return int((rows["rank"] == 1).sum()), len(rows)

    def first_read(self, k: int = 3) -> pd.DataFrame:
        """What is read of the first prompt: `layer pivot target entropy label_1 prob_1 …`.

        Args:
            k: Most probable tokens shown; fewer where fewer are kept.

        Returns:
            One row per layer: the probability of the pivot's and of the target's word, the entropy
            in bits, and the most probable tokens with theirs.
        """
        mine = self.rows[self.rows["prompt"] == 0].pivot(
            index="layer", columns="language", values="prob"
        )
        states = self.states[self.states["prompt"] == 0].set_index("layer")
        found = pd.DataFrame({"target": mine[self.target], "entropy": states["entropy"]})
        found["pivot"] = mine.get(self.pivot, np.nan)
        top = self.top[self.top["prompt"] == 0]
        for place in range(1, k + 1):
            here = top[top["k"] == place].set_index("layer")
            if len(here):
                found[f"label_{place}"] = here["label"]
                found[f"prob_{place}"] = here["prob"]
        return found.reset_index()

    def _more_than(self, shuffled: "LensResult", layer: int) -> pd.Series:
        """By how much the target's word beats another prompt's, by prompt; NaN without another."""
        mine, other = (
            found.rows[(found.rows["layer"] == layer) & (found.rows["language"] == self.target)]
            for found in (self, shuffled)
        )
        theirs = mine["id"].map(other.set_index("id")["prob"].astype(float))
        return (mine["prob"].astype(float) - theirs).set_axis(mine["prompt"])

    def _composition(self) -> pd.DataFrame:
        counts = self.top.groupby(["layer", "language"]).size().unstack(fill_value=0)
        shares = counts.div(counts.sum(axis=1), axis=0)
        order = [c for c in (self.pivot, self.target, self.source) if c in shares.columns]
        rest = sorted(set(shares.columns) - set(order) - {UNKNOWN})
        columns = list(dict.fromkeys([*order, *rest, *({UNKNOWN} & set(shares.columns))]))
        long = shares[columns].reset_index().melt("layer", value_name="share")
        return long.sort_values("layer", kind="stable", ignore_index=True)

    def _landmarks(
        self,
        values: np.ndarray,
        boot: Bootstrap,
        codes: np.ndarray,
        languages: list[str],
        layers: np.ndarray,
    ) -> pd.DataFrame:
        shape = (-1, len(languages), len(layers))
        by_language = dict(zip(languages, values.reshape(shape).swapaxes(0, 1), strict=True))
        every = np.vstack([boot.mean, boot.draws]).reshape(shape)
        curves = dict(zip(languages, every.swapaxes(0, 1), strict=True))
        last = len(layers) - 1
        target, n = curves[self.target], int(boot.n.max())
        table: list[dict[str, str | float | int]] = []

        def note(name: str, value: float, ends: tuple[float, float], share: float = 1.0) -> None:
            low, high = map(float, ends)
            numbers = {"value": float(value), "low": low, "high": high, "n": n}
            table.append({"name": name, **numbers, "share_of_draws": share})

        def at_output(name: str, language: str) -> None:
            column = languages.index(language) * len(layers) + last
            low, high = boot.interval()
            note(name, boot.mean[column], (low[column], high[column]))

        def place(name: str, found: np.ndarray) -> None:
            """Of a layer, in the sample and in each draw."""
            confidence = boot.resampling.confidence
            ends = jumping(found[1:], clusters=int(boot.clusters.max()), confidence=confidence)
            note(name, found[0], ends, float(np.isfinite(found[1:]).mean()))

        def mean(name: str, of_prompts: np.ndarray) -> None:
            found = bootstrap(of_prompts[:, None], clusters=codes, resampling=boot.resampling)
            (low,), (high,) = found.interval()
            note(name, found.mean[0], (low, high))

        def peak(name: str, language: str) -> np.ndarray:
            own = read_at_peak(by_language[language], codes, seed=boot.resampling.seed)
            mean(f"{name}_peak_prob", own)
            place(f"{name}_peak_layer", layers[curves[language].argmax(axis=1)].astype(float))
            return own

        at_output("final_target_prob", self.target)
        shown = None
        if self.source in languages and self.source not in (self.target, self.pivot):
            shown = peak("source", self.source)
        if self.pivot in languages and self.pivot != self.target:
            at_output("final_pivot_prob", self.pivot)
            passed = peak("pivot", self.pivot)
            if shown is not None:
                mean("source_over_pivot", shown - passed)
            pivot = curves[self.pivot]
            crossing = _crossover(pivot, target, pivot.argmax(axis=1))
            place(
                "crossover_layer", np.where(crossing < 0, np.nan, layers[np.maximum(crossing, 0)])
            )
        return pd.DataFrame(table)


@dataclass(frozen=True, kw_only=True)
class LensTokens(Result):
    """What the lens reads of each state, whatever it is: no words are looked for.

    Attributes:
        states: One row per prompt and layer: `prompt id layer`, `entropy` and `kl` (final layer ||
            this one) in bits, `energy`.
        top: One row per prompt, layer and place k: `token label prob language`; `unknown` where no
            script tells the language.
        n_layers: Of the model.
        lens: Through which states were read: `logit`, `tuned` or `jacobian`.
    """

    states: pd.DataFrame
    top: pd.DataFrame
    n_layers: int
    lens: str = "logit"

    def to_frame(self) -> pd.DataFrame:
        """`top` with the layer's `entropy`, `kl` and `energy` beside it."""
        return self.top.merge(self.states, on=["prompt", "id", "layer"], how="left")


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


def lens_title(kind: str) -> str:
    """A lens as it is spoken of: `Jacobian lens`."""
    return f"{kind.replace('jacobian', 'Jacobian')} lens"


def read_at_peak(
    values: Float[np.ndarray, "prompt layer"], clusters: Int[np.ndarray, " prompt"], *, seed: int
) -> Float[np.ndarray, " prompt"]:
    """Each prompt's value at the layer where the mean of the other half of prompts is highest.

    The highest of many means is too high wherever noise decides between them; the half that a layer
    was not chosen by knows nothing of that. Where there is one cluster, at its own peak.
    """
    n = int(clusters.max()) + 1
    half = generator(seed, 2).permutation(n) < n // 2
    halves = [half[clusters], ~half[clusters]] if n > 1 else [np.ones(len(values), dtype=bool)]
    out = np.full(len(values), np.nan)
    for mine, others in zip(halves, halves[::-1], strict=True):
        out[mine] = values[mine, int(np.nanmean(values[others], axis=0).argmax())]
    return out


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
