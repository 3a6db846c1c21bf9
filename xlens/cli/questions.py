"""Commands that ask a model questions in several languages; light until one of them runs."""

from pathlib import Path
from typing import Annotated, Literal

from xlens.cli.options import LOADING, Flat, Loading, Switch
from xlens.cli.serving import Serving
from xlens.lengths import By
from xlens.studies.options import Intervals, ReadingStudy

INTERVALS, READING, SERVING = Intervals(), ReadingStudy(), Serving()


def choices(
    model: str,
    *,
    languages: tuple[str, ...] = (),
    items: Path | None = None,
    layout: Literal["jsonl", "xcopa", "belebele", "global-mmlu", "m-mmlu", "bmlama"] = "jsonl",
    split: str | None = None,
    incomplete: Literal["error", "drop"] = "error",
    identical: Literal["keep", "drop"] | None = None,
    kinds: tuple[str, ...] = (),
    n_items: int = 100,
    shots: int = 2,
    by: By = "logprob",
    intervals: Annotated[Intervals, Flat] = INTERVALS,
    loading: Annotated[Loading, Flat] = LOADING,
    out: Path = Path("runs/choices"),
    overwrite: Annotated[bool, Switch] = False,
) -> None:
    """Ask the same multiple-choice questions in several languages: do the answers agree?

    ```
    xlens choices gemma-3-270m --languages en de sw
    xlens choices gemma-3-270m --languages en de --kinds code-territory --shots 0
    xlens choices gemma-3-270m --items mine.jsonl --out runs/mine
    xlens choices gemma-3-270m --items data/xcopa --layout xcopa --incomplete drop
    ```

    Args:
        model: As for `xlens lens`.
        languages: Of the questions; with --items by default all there are.
        items: Questions of your own, a file or a folder; default: facts from CLDR.
        layout: Of --items.
        split: Read files with this in their name (val); default test where there are splits.
        incomplete: Items that some language lacks, or that differ between languages (some of
            XCOPA's do): an error, or left out.
        identical: Items with an option that is the same string in two languages: keep or drop;
            default keep for --items, drop for facts from CLDR.
        kinds: Kinds of items; default all.
        n_items: Most items, drawn with seed.
        shots: Demonstrations before each question.
        by: Options are compared by their summed log-probability (lm-eval: acc), or by that per
            token, per byte (acc_bytes) or per character (acc_norm).
        intervals: How they are drawn.
        loading: How the model is loaded.
        out: Folder of the run. The same command goes on with a stopped run.
        overwrite: Delete an earlier run there first.
    """
    from xlens.cli.choices_job import choices_job

    choices_job(
        model=model,
        languages=languages,
        items=items,
        layout=layout,
        split=split,
        incomplete=incomplete,
        identical=identical,
        kinds=kinds,
        n_items=n_items,
        shots=shots,
        by=by,
        intervals=intervals,
        loading=loading,
        out=out,
        overwrite=overwrite,
    )


def process(
    model: str,
    *,
    languages: tuple[str, ...] = (),
    items: tuple[str, ...] = (),
    kinds: tuple[str, ...] = (),
    pivot: str = "en",
    n_items: int = 100,
    shots: int = 2,
    by: By = "logprob",
    pooling: str = "last",
    steer: tuple[str, ...] = (),
    steer_languages: tuple[str, ...] = (),
    layers: tuple[str, ...] = (),
    strengths: tuple[float, ...] = (),
    slot: str = "all",
    n_estimate: int = 100,
    n_dev: int = 50,
    n_test: int = 50,
    intervals: Annotated[Intervals, Flat] = INTERVALS,
    loading: Annotated[Loading, Flat] = LOADING,
    out: Path = Path("runs/process"),
    overwrite: Annotated[bool, Switch] = False,
) -> None:
    """Do languages share a space inside, do their answers agree, and does steering help?

    ```
    xlens process gemma-3-270m --languages en de ru sw
    xlens process gemma-3-270m --languages en de sw --steer mean_difference --layers 4 8 12-14
    xlens process gemma-3-270m --items xcopa:data/xcopa mine.jsonl --pivot it
    ```

    Args:
        model: As for `xlens lens`.
        languages: Of the items from CLDR.
        items: `cldr` (default), a file of questions of your own, or LAYOUT:PATH with the layouts of
            `xlens choices`; several are reported beside each other.
        kinds: Kinds of CLDR items; default all.
        pivot: The language suspected inside, and steered to.
        n_items: Most items asked, drawn with seed.
        shots: Demonstrations before each question.
        by: Options are compared by their summed log-probability (lm-eval: acc), or by that per
            token, per byte (acc_bytes) or per character (acc_norm).
        pooling: How a prompt becomes one state: last, mean, mean_without_first, mean_weighted.
        steer: Methods of steering to try: mean_difference, pca, pca_centred, lda, lsar.
        steer_languages: Languages that are steered; default all but the pivot.
        layers: Of steering: layers, or bands such as 7-9; default each by itself.
        strengths: Of steering with vectors.
        slot: Of steering: all, last or generated.
        n_estimate: Items that vectors are estimated on.
        n_dev: Items that layer and strength are chosen on.
        n_test: Items that steering is reported on.
        intervals: How they are drawn.
        loading: How the model is loaded.
        out: Folder of the run. The same command goes on with a stopped run.
        overwrite: Delete an earlier run there first.
    """
    from xlens.cli.process_job import process_job

    process_job(
        model=model,
        languages=languages,
        items=items,
        kinds=kinds,
        pivot=pivot,
        n_items=n_items,
        shots=shots,
        by=by,
        pooling=pooling,
        steer=steer,
        steer_languages=steer_languages,
        layers=layers,
        strengths=strengths,
        slot=slot,
        n_estimate=n_estimate,
        n_dev=n_dev,
        n_test=n_test,
        intervals=intervals,
        loading=loading,
        out=out,
        overwrite=overwrite,
    )


def xmrc(
    model: tuple[str, ...],
    *,
    data: str = "xquad",
    layout: Literal["squad", "mlqa", "tydiqa"] = "squad",
    study: Annotated[ReadingStudy, Flat] = READING,
    incomplete: Literal["error", "drop"] = "error",
    faulty: Literal["error", "drop"] = "error",
    pair: tuple[str, ...] = (),
    serving: Annotated[Serving, Flat] = SERVING,
    loading: Annotated[Loading, Flat] = LOADING,
    out: Path = Path("runs/xmrc"),
    overwrite: Annotated[bool, Switch] = False,
) -> None:
    """How well do models find in a text in one language what is asked in another?

    ```
    xlens xmrc gemma-3-270m --context en --questions en,de,zh-Hans
    xlens xmrc gemma-3-270m --data data/xquad --settings en-en,en-x,x-x --n-items 100 --phases
    xlens xmrc org/base org/base-it --data mine.json --context de --questions de
    xlens xmrc small large --served http://localhost:8000/v1 --data data/xquad
    ```

    Prints scores with their intervals and controls, writes answers, a report and, for several
    models, a leaderboard. Models that are a pair, base and post-trained, stand side by side: those
    named with --pair, and those whose names differ by -it, -Instruct or -chat only.

    Args:
        model: One or several, as for `xlens lens`; or NAME@URL for a model behind an
            OpenAI-compatible endpoint.
        data: xquad, mlqa or tydiqa from the hub, or a file or folder in the --layout.
        layout: Of a file or folder.
        study: What is asked.
        incomplete: Questions that some language lacks: an error, or left out.
        faulty: Questions whose answer isn't in its place: an error, or left out.
        pair: BASE:POST, two of the models.
        serving: How endpoints are asked.
        loading: How the model is loaded.
        out: Folder of the run. The same command goes on with a stopped run; pairs, keys, prices,
            concurrency and what becomes of refused prompts may differ.
        overwrite: Delete an earlier run there first.
    """
    from xlens.cli.xmrc_job import xmrc_job

    xmrc_job(
        model=model,
        data=data,
        layout=layout,
        study=study,
        incomplete=incomplete,
        faulty=faulty,
        pair=pair,
        serving=serving,
        loading=loading,
        out=out,
        overwrite=overwrite,
    )
