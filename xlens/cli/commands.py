"""The commands. Everything heavy is imported inside, so that `--help` answers at once."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from xlens.cli.options import MODELS, Flat
from xlens.errors import InputError
from xlens.studies.loading import Loading

LOADING = Loading()


def trace(
    model: str,
    text: str,
    *,
    last: int = 8,
    out: Path | None = None,
    loading: Annotated[Loading, Flat, Parameter(group=MODELS)] = LOADING,
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
    from xlens.figures import trace_table, trace_text, write_figure
    from xlens.lens import trace as read
    from xlens.prompts.prompt import UNDETERMINED, Prompt
    from xlens.runs import check_writable

    prompt = Prompt(text, UNDETERMINED, "trace")
    if last < 1:
        raise InputError(f"--last is {last}; give the number of positions to print, 1 or more.")
    if out is not None:
        check_writable(out)
    result = read(loading.load(model), prompt)
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
    loading: Annotated[Loading, Flat, Parameter(group=MODELS)] = LOADING,
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
    from xlens.engine import Execution
    from xlens.engine import harvest as run
    from xlens.prompts import parse_slot, read_prompts
    from xlens.runs import check_writable
    from xlens.sites import known_site
    from xlens.store import Store

    asked = read_prompts(prompts)
    for slot in slots:
        parse_slot(slot)
    known_site(site)
    Execution(token_budget=token_budget)  # refuses what can't be
    check_writable(out)
    activations = run(
        loading.load(model),
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
    from xlens.cli.models_table import show_models, verify_models

    if verify:
        verify_models()
    else:
        show_models()


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
    from xlens.figures.export import check_static
    from xlens.report import write_report
    from xlens.runs import RunDirectory

    check_static(static)
    print(write_report(RunDirectory.open(run), static=static))


def compare(
    first: Path,
    second: Path,
    *,
    out: Path | None = None,
) -> None:
    """Two runs of one study, or two saved results of one kind, side by side.

    ```
    xlens compare runs/base runs/aligned
    xlens compare runs/base runs/aligned --out compared
    ```

    Args:
        first: Folder of a run, or of a result below a run's results.
        second: Likewise; differences are this one's less the first's.
        out: Also write every number, and a figure, into this folder.
    """
    from xlens.comparison import compare as side_by_side
    from xlens.figures import compared_points, write_figure
    from xlens.runs import check_writable
    from xlens.terminal import show_table

    if out is not None:
        check_writable(out)
    found = side_by_side(first, second)
    for place, name in zip(("first", "second"), found.names, strict=True):
        print(f"{place}: {name}")
    rows = [
        [str(cell) if not isinstance(cell, float) else f"{cell:.4g}" for cell in row]
        for row in found.summary.itertuples(index=False, name=None)
    ]
    show_table([*found.summary.columns], rows)
    if found.left_out:
        print(
            f"left out, as one of the two lacks it or its rows have no name: "
            f"{', '.join(found.left_out)}"
        )
    if out is not None:
        print(found.save(out / "result"))
        print(write_figure(compared_points(found), out, "compared")[0])
