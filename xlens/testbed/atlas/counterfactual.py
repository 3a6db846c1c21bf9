"""The atlas beside one that never read the English side of its transfer set."""

from pathlib import Path

from xlens.acquisition import Pathway, pathway
from xlens.checks import typed
from xlens.errors import InputError
from xlens.models import load
from xlens.stats import Resampling
from xlens.tasks.facts import Facts, ask_facts
from xlens.testbed.atlas.facts import atlas_facts

RULE = "word"


@typed
def measure_pathway(
    without: Path,
    revision: str = "final",
    *,
    whole: str | Path = "atlas",
    facts: Facts | None = None,
    resampling: Resampling = Resampling(),
    progress: bool = True,
) -> Pathway:
    """Ask a model and its counterfactual all facts, and compare what they recall.

    Args:
        without: A run of `train_atlas` with a recipe whose `withheld` is set.
        revision: Of both: `final`, or a checkpoint.
        whole: The model that read everything: the shipped one, or a run's folder.
        facts: Asked of both; default the atlas's own, without demonstrations.
        resampling: Of intervals.
        progress: Show bars.

    Raises:
        ValueError: no such checkpoint in one of the two.
    """
    folder = without / "base" / revision
    if not folder.is_dir():
        made = sorted(path.name for path in (without / "base").glob("*") if path.is_dir())
        raise InputError(
            f"{str(without)!r} has no checkpoint {revision!r} of the base model; there are "
            f"{', '.join(made) or 'none'}. Train it first, or name one of these."
        )
    asked = atlas_facts() if facts is None else facts
    if isinstance(whole, Path):
        one = load(whole / "base" / revision, device="cpu")
    else:
        one = load(whole, revision=revision, device="cpu")
    answers = [
        ask_facts(model, asked, shots=0, progress=progress).table
        for model in (one, load(folder, device="cpu"))
    ]
    return pathway(*answers, rule=RULE, resampling=resampling)


def told(found: Pathway) -> str:
    """What it comes to, as tables."""
    groups = found.table[found.table["language"].isin(["all", found.pivot])]
    tables = (found.sizes, groups)
    return "\n\n".join(table.round(3).to_string(index=False) for table in tables)
