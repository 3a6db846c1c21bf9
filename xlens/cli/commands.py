"""The commands. Everything heavy is imported inside, so that `--help` answers at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from xlens.cli.options import LOADING, Flat, Loading, Switch
from xlens.studies import LensStudy

DEMO_PAIRS = ("fr:zh-Hans", "de:ru", "ru:zh-Hans", "zh-Hans:fr")
# Currency names repeat the country's name in most languages: left out where words are few.
DEMO_KINDS = ("territory", "language", "month", "weekday", "unit")


@dataclass(frozen=True, kw_only=True)
class DemoStudy(LensStudy):
    """Fewer items than `lens` reads: the demo is for the first minutes."""

    n_items: int = 60
    n_controls: int = 24


LENS, DEMO = LensStudy(), DemoStudy()


def demo(
    *,
    model: str = "gemma-3-270m",
    pairs: tuple[str, ...] = DEMO_PAIRS,
    study: Annotated[DemoStudy, Flat] = DEMO,
    loading: Annotated[Loading, Flat] = LOADING,
    out: Path = Path("runs/demo"),
    overwrite: Annotated[bool, Switch] = False,
) -> None:
    """Read a real multilingual model through the logit lens and write a report.

    Gemma 3 270M translates words between languages that are not English; the report shows
    whether English appears inside, layer by layer, with the controls beside. About 3 minutes on
    two CPU cores.

    ```
    xlens demo
    xlens demo --pairs ja:ar hi:de --n-items 50
    ```

    Args:
        model: As for `xlens lens`.
        pairs: Language pairs SOURCE:TARGET.
        study: What is asked of each pair.
        loading: How the model is loaded.
        out: Folder of the run. The same command goes on with a stopped run.
        overwrite: Delete an earlier run there first.
    """
    from xlens.cli.lens_job import lens_job

    lens_job(
        command="demo",
        model=model,
        pairs=pairs,
        study=study,
        kinds=DEMO_KINDS,
        loading=loading,
        out=out,
        overwrite=overwrite,
    )


def lens(
    model: str,
    *,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    target: Annotated[str | None, Parameter(name="--to")] = None,
    pairs: tuple[str, ...] = (),
    study: Annotated[LensStudy, Flat] = LENS,
    words: Path | None = None,
    columns: tuple[str, ...] = (),
    repeats: Literal["error", "first"] = "error",
    missing: Literal["error", "drop", "keep"] = "error",
    kinds: tuple[str, ...] = (),
    loading: Annotated[Loading, Flat] = LOADING,
    static: tuple[str, ...] = (),
    out: Path | None = None,
    overwrite: Annotated[bool, Switch] = False,
) -> None:
    """Which language's word is the model about to say, layer by layer?

    ```
    xlens lens gemma-3-270m --from fr --to zh-Hans
    xlens lens ./my-checkpoint --pairs de:ru ru:ar --kinds territory month
    xlens lens google/gemma-3-270m --from fr --to hi --words my-words.tsv --reading whole
    xlens lens ./my-checkpoint --from fr --to tlh --words my-words.tsv --names.tlh "tlhIngan Hol"
    ```

    Args:
        model: Hub id, folder, `.gguf` file, or a name from `xlens models`.
        source: Language of the word shown, a BCP-47 tag.
        target: Language asked for.
        pairs: Several pairs SOURCE:TARGET instead of --from and --to.
        study: What is asked of each pair.
        words: Your own word list (TSV, CSV or JSON Lines with language tags as column names).
        columns: What the columns of --words are where they aren't named by tags: NAME:TAG of each,
            or, in a file without a row of names, the tags in order.
        repeats: Rows of --words that repeat an item: an error, or all but the first left out.
        missing: Rows of --words that lack a word: an error, left out, or kept for the pairs of
            languages that they have words in.
        kinds: Which of the built-in words (CLDR): territory language currency month weekday unit.
        loading: How the model is loaded.
        static: Pictures to write beside the pages: png svg pdf (needs the extra `static`).
        out: Folder of the run; default `runs/lens-MODEL-PAIRS`.
        overwrite: Delete an earlier run there first.
    """
    from xlens.cli.lens_job import lens_job

    if (source is None) != (target is None) or bool(pairs) == (source is not None):
        given = {"--from": source, "--to": target, "--pairs": pairs}
        shown = " and ".join(name for name, value in given.items() if value) or "none of them"
        raise ValueError(f"Give either --from and --to, or --pairs SOURCE:TARGET …; got {shown}.")
    chosen = pairs or (f"{source}:{target}",)
    name = "-".join(["lens", Path(model).name, *(pair.replace(":", "_") for pair in chosen)])
    lens_job(
        command="lens",
        model=model,
        pairs=chosen,
        study=study,
        words=words,
        columns=columns,
        repeats=repeats,
        missing=missing,
        kinds=kinds,
        loading=loading,
        static=static,
        out=out or Path("runs") / name,
        overwrite=overwrite,
    )


def trace(
    model: str,
    text: str,
    *,
    last: int = 8,
    out: Path | None = None,
    loading: Annotated[Loading, Flat] = LOADING,
) -> None:
    """One prompt: the most probable token at every layer and position.

    ```
    xlens trace gemma-3-270m 'Deutsch: "Wasser" - Русский: "'
    xlens trace gemma-3-270m 'The capital of France is' --out figures
    ```

    Args:
        model: As for `xlens lens`.
        text: The prompt.
        last: Positions to print, from the end. The page shows all.
        out: Also write the table as a page (HTML and JSON) into this folder.
        loading: How the model is loaded.
    """
    from xlens.cli.common import load_model
    from xlens.figures import trace_table, trace_text, write_figure
    from xlens.lens import trace as read
    from xlens.prompts.prompt import UNDETERMINED, Prompt
    from xlens.runs import check_writable

    prompt = Prompt(text, UNDETERMINED, "trace")
    if last < 1:
        raise ValueError(f"--last is {last}; give the number of positions to print, 1 or more.")
    if out is not None:
        check_writable(out)
    result = read(load_model(model, loading), prompt)
    print(trace_text(result.last(last)))
    if out is not None:
        print(write_figure(trace_table(result), out, "trace")[0])


def harvest(
    model: str,
    prompts: Path,
    *,
    layers: tuple[int, ...] = (),
    slots: tuple[str, ...] = ("last",),
    site: str = "resid",
    prepend_bos: bool | None = None,
    token_budget: int | None = None,
    loading: Annotated[Loading, Flat] = LOADING,
    store: bool = True,
    out: Path = Path("runs/harvest"),
) -> None:
    """Cache residual-stream states of prompts: the input of every analysis.

    A stopped harvest goes on where it was: what is done lies in xlens's store (`xlens store ls`).

    ```
    xlens harvest gemma-3-270m prompts.jsonl --slots last question:mean --out acts
    xlens harvest gpt2 prompts.jsonl --layers 0 6 12
    xlens harvest gpt2 prompts.jsonl --site mlp_post --layers 4 5 --executor ray
    ```

    Args:
        model: As for `xlens lens`.
        prompts: JSON Lines: text, language, id, and optionally spans and meta.
        layers: Residual points, 0 (embedding) to n_layers; blocks at other sites; default all.
        slots: Positions to keep: last, all, NAME:first|last|mean|sum|each|predict.
        site: What to keep there: resid (the residual stream), z (heads), attn_out, mlp_gate,
            mlp_post or mlp_out of blocks.
        prepend_bos: Force or forbid a BOS token; default: what the tokenizer does.
        token_budget: Most tokens in one batch.
        loading: How the model is loaded.
        store: Keep the states in the store too; without it a stopped harvest begins anew.
        out: Folder for the activations (`xlens.Activations.load` reads it).
    """
    from xlens.activations import known_site
    from xlens.cli.common import load_model
    from xlens.engine import Store
    from xlens.engine import harvest as run
    from xlens.prompts import parse_slot, read_prompts
    from xlens.runs import check_writable

    asked = read_prompts(prompts)
    for slot in slots:
        parse_slot(slot)
    known_site(site)
    check_writable(out)
    activations = run(
        load_model(model, loading),
        asked,
        layers=layers or "all",
        slots=slots,
        site=site,
        prepend_bos=prepend_bos,
        token_budget=token_budget,
        store=Store() if store else None,
    )
    print(activations)
    print(activations.save(out))


def models(*, verify: bool = False) -> None:
    """List models that come by name, and what is installed and cached.

    ```
    xlens models
    xlens models --verify
    ```

    Args:
        verify: Read every converted model whole and compare it with its digests instead.
    """
    from xlens.cli.common import models_table, verify_models

    if verify:
        verify_models()
    else:
        print(models_table())


def report(
    run: Path,
    *,
    static: tuple[str, ...] = (),
) -> None:
    """Write a run's figures and report again from its saved results.

    ```
    xlens report runs/demo
    xlens report runs/demo --static svg pdf
    ```

    Args:
        run: Folder of a run.
        static: Pictures to write beside the pages: png svg pdf (needs the extra `static`).
    """
    from xlens.report import write_report
    from xlens.runs import RunDirectory

    print(write_report(RunDirectory.open(run), static=static))
