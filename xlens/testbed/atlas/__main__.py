"""`python -m xlens.testbed.atlas train`, `... counterfactual` and `... evaluate`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cyclopts

if TYPE_CHECKING:
    from xlens.testbed.atlas.build import Recipe

app = cyclopts.App(
    name="python -m xlens.testbed.atlas",
    help="Train and measure the atlas, a small multilingual model whose text was counted.",
)


@app.command
def train(out: Path = Path("atlas-run"), *, ship: bool = False) -> None:
    """Train base model, checkpoints and twin; a stopped run goes on when started again.

    One thread of a CPU is used: more would sum in another order and give other weights.

    Args:
        out: Where everything goes; each checkpoint in it is a folder that `xlens.load` takes.
        ship: Also put the models into the package, in place of those there.
    """
    from xlens.testbed.atlas import build

    _train(out, build.Recipe())
    if ship:
        build.ship(out)


@app.command
def counterfactual(
    out: Path = Path("atlas-without"), *, revision: str = "final", train: bool = True
) -> None:
    """Train the base model without what English says of the transfer set, and measure what is lost.

    A stopped run goes on when started again. Its weights are never shipped.

    Args:
        out: Where everything goes; the result in `pathway`.
        revision: What is compared with the same of the atlas: final, or a checkpoint (step2048).
        train: To the end first; else (--no-train) a checkpoint that is there is measured.
    """
    from xlens.testbed.atlas import build
    from xlens.testbed.atlas.counterfactual import measure_pathway, told

    if train:
        _train(out, build.Recipe(withheld=True))
    found = measure_pathway(out, revision)
    found.save(out / "pathway" / revision)
    print(told(found))


def _train(out: Path, recipe: "Recipe") -> None:
    import torch

    from xlens.testbed.atlas import build

    torch.set_num_threads(1)
    curves = build.train_atlas(out, recipe)
    for name, curve in curves.table.groupby("phase", sort=False):
        last = curve.iloc[-1]
        print(f"{name}: {int(last.step)} steps, {int(last.tokens):,} tokens, {last.seconds:.0f} s")


@app.command
def evaluate(
    out: Path = Path("atlas-run/report"),
    *,
    run: Path | None = None,
    card: Path | None = None,
    ship: bool = False,
) -> None:
    """Measure base model and twin; write the figures as JSON and tables, and print the card.

    Args:
        out: Gets the report: `result.json` and a Parquet file per table, and `card.md`.
        run: A folder that `train` made; the shipped weights by default.
        card: A Markdown file whose block between the markers `atlas:begin` and `atlas:end` is
            replaced by the new tables.
        ship: Also put the report into the package.
    """
    from xlens.files import write
    from xlens.models import load
    from xlens.testbed.atlas import build
    from xlens.testbed.atlas.card import card_text, put_into
    from xlens.testbed.atlas.evaluate import measure

    if run is None:
        base, twin = load("atlas", device="cpu"), load("atlas-post", device="cpu")
        here, manifest = build.shipped_manifest()
        curves = build.shipped_curves()
        folders = {f"step{step}": build.DATA / f"step{step}" for step in build.SHIPPED_STEPS}
    else:
        base = load(run / "base" / "final", device="cpu")
        twin = load(run / "post" / "final", device="cpu")
        here, manifest = build.trained_manifest(run)
        curves = build.trained_curves(run)
        folders = {f"step{step}": run / "base" / f"step{step}" for step in build.SHIPPED_STEPS}
    series = {step: partial(load, path, device="cpu") for step, path in folders.items()}
    report = measure(base, twin, here, manifest, series=series)
    report.save(out)
    if ship:
        report.save(build.DATA / "report")
    text = card_text(report, manifest, curves)
    write(out / "card.md", text)
    if card is not None:
        put_into(card, text)
    print(text)


if __name__ == "__main__":
    app()
