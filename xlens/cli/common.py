"""What several commands share."""

import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from xlens.cli.options import Loading
from xlens.engine import executors
from xlens.models import HookedModel, load
from xlens.models.families import FAMILIES
from xlens.runs import RunDirectory, describe_run


def load_model(source: str, loading: Loading) -> HookedModel:
    """`xlens.load` with the options of the command line, which also say where it will run."""
    executors.use(loading.executor)
    return load(
        source,
        dtype=getattr(torch, loading.dtype),
        revision=loading.revision,
        trust_remote_code=loading.trust_remote_code,
        attention=loading.attention,
        adapter=loading.adapter,
        merge=loading.merge,
    )


def open_run(
    out: Path,
    command: str,
    options: Mapping[str, Any],
    *,
    overwrite: bool,
    free: Collection[str] = (),
    **known: Any,
) -> RunDirectory:
    """The run directory of a command that runs a model, made or taken up again.

    Args:
        out: The folder.
        command: Its name, under which the options stand in the config; None is left out.
        options: As in the config file, `model` among them.
        overwrite: Delete an earlier run there first.
        free: Options that shape no result, and may change when the run is taken up again.
        known: More for the provenance.

    Raises:
        ValueError: as `RunDirectory.create`.
    """
    config = {command: {name: value for name, value in options.items() if value is not None}}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    provenance = describe_run(model=options["model"], device=device, **known)
    # A run that has no result yet has nothing to lose: its options can still be mended.
    empty = not RunDirectory(out).results()
    names = [f"{command}.{name}" for name in free]
    return RunDirectory.create(out, config, provenance, overwrite=overwrite or empty, free=names)


def counted(survival: pd.DataFrame) -> dict[str, int]:
    """The number of a survival table by reason, `offered` and `kept` first."""
    return {str(k): int(n) for k, n in zip(survival["reason"], survival["n"], strict=True)}


def verify_models() -> None:
    """Compare every converted model, and those that come with xlens, with their digests.

    Raises:
        ValueError: some are damaged; says which, and what to do.
    """
    from xlens.models.checked import check_all, check_shipped
    from xlens.models.shipped import find_shipped, shipped_names, shipped_revisions

    found = check_all()
    for name in shipped_names():
        for revision in shipped_revisions(name):
            if model := find_shipped(name, revision):
                try:
                    check_shipped(model.folder.parent, model.folder.name)
                    found[f"{name} {revision}"] = ""
                except ValueError as error:
                    found[f"{name} {revision}"] = str(error)
    for name, wrong in found.items():
        print(f"{name}: {wrong or 'whole'}")
    if damaged := [name for name, wrong in found.items() if wrong]:
        raise ValueError(f"Damaged: {', '.join(damaged)}. What to do stands above.")


def models_table() -> str:
    """Models by name, as a table for the terminal."""
    from xlens.models.shipped import find_shipped, shipped_names, shipped_revisions
    from xlens.models.sources import known_models

    rows = [("name", "state", "licence", "what")]
    for known in known_models():
        state = "ready" if known.cached else "installed" if known.installed else known.install
        rows.append((known.name, state, known.licence, known.what))
    for name in shipped_names():
        if found := find_shipped(name):
            what = f"comes with xlens, to test analyses on; {', '.join(shipped_revisions(name))}"
            rows.append((name, "ready", found.licence, what))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]) for r in rows
    ]
    return "\n".join(
        [
            *lines,
            "",
            "Besides these: any hub id, folder or .gguf file of a causal language model.",
            *textwrap.wrap(f"Tested families: {', '.join(f.name for f in FAMILIES)}.", 88),
            "Any other is checked when it is loaded, and refused with the reason if the readout of",
            "its last layer is not its own output.",
        ]
    )
