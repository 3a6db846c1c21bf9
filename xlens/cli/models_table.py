"""`xlens models`: the table, and the check."""

import textwrap

from xlens.errors import InputError
from xlens.models.families import FAMILIES
from xlens.terminal import show_table


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
        raise InputError(f"Damaged: {', '.join(damaged)}. What to do stands above.")


def show_models() -> None:
    """Print a table of the models that come by name."""
    from xlens.models.shipped import find_shipped, shipped_names, shipped_revisions
    from xlens.models.sources import known_models

    rows: list[list[str]] = []
    for known in known_models():
        state = "ready" if known.cached else "installed" if known.installed else known.install
        rows.append([known.name, state, known.licence, known.what])
    for name in shipped_names():
        if found := find_shipped(name):
            what = f"comes with xlens, to test analyses on; {', '.join(shipped_revisions(name))}"
            rows.append([name, "ready", found.licence, what])
    show_table(["name", "state", "licence", "what"], rows)
    print(
        "\nBesides these: any hub id, folder or .gguf file of a causal language model.",
        *textwrap.wrap(f"Tested families: {', '.join(f.name for f in FAMILIES)}.", 88),
        "Any other is checked when it is loaded, and refused with the reason if the readout of",
        "its last layer is not its own output.",
        sep="\n",
    )
