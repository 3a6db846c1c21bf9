"""The parts of a run as pages take them: by model, and in it by group, such as a pair."""

from collections.abc import Mapping
from dataclasses import dataclass

from xlens.errors import InputError
from xlens.results import Result, by_group
from xlens.runs import RunDirectory


@dataclass(frozen=True)
class Group:
    """Parts that belong together.

    Attributes:
        key: Its name in the page: of the group alone where the run has one model.
        model: The model's folder.
        name: The group's: `fr_zh-Hans`, or a set of items; empty for parts of none.
        parts: By their names within the group.
        title: What people read: with the model where there are several.
    """

    key: str
    model: str
    name: str
    parts: dict[str, Result]
    title: str


def groups(
    run: RunDirectory, models: Mapping[str, Mapping[str, Result]] | None = None
) -> dict[str, Group]:
    """The groups of a run by key, as they lie; what was left out is none.

    Args:
        run: Which.
        models: Its parts by model, where they are read already.
    """
    models = parts_of(run) if models is None else models
    found: dict[str, Group] = {}
    several = len(models) > 1
    for model, every in models.items():
        for group, parts in by_group(every).items():
            if group:
                key = f"{model}-{group}" if several else group
                title = f"{model}, {group}" if several else group
                found[key] = Group(key, model, group, parts, title)
    if not found:
        raise InputError(
            f"{str(run.path)!r} has no results yet: run the study to its end first, so that "
            "results/<model>/<part>/ holds at least one."
        )
    return found


def parts_of(run: RunDirectory) -> dict[str, dict[str, Result]]:
    """All parts of a run by model, read and verified once for a page."""
    return {model: run.parts(model) for model in run.models}


def require_summaries(
    run: RunDirectory, parts: Mapping[str, Mapping[str, Result]], summaries: Mapping[str, str]
) -> None:
    """Refuse parts without the summaries that a page is made of.

    Args:
        run: Whose parts.
        parts: Of each model or group.
        summaries: Of what each part is summed up in.

    Raises:
        ValueError: an older xlens made them, or the run was stopped; with the command that goes on.
    """
    for name, own in parts.items():
        if lacking := [s for part, s in summaries.items() if part in own and s not in own]:
            raise InputError(
                f"{str(run.path)!r} has no {' and no '.join(lacking)} of {name}: an older xlens "
                "made none, or the run was stopped before. The same command makes it from what is "
                f"saved: {run.again}"
            )
