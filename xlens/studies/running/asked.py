"""Who is asked what: all that can be refused before a model is loaded is refused here."""

from collections.abc import Sequence
from typing import Any

from xlens.served import ServedModel
from xlens.studies.loading import Loading
from xlens.studies.running.places import Model, Place, places
from xlens.studies.serving import Serving
from xlens.studies.study import Study


def asked_of(
    study: Study,
    model: Model | Sequence[Model] | None,
    data: Any,
    loading: Loading,
    serving: Serving,
) -> tuple[list[Place], Any]:
    """Who is asked what; all that can be refused without looking at a model is.

    Raises:
        ValueError: it was.
    """
    chosen = places(_named(study, model), loading, serving, chat=study.asks_chat)
    study.check_models({place.name: place.folder for place in chosen})
    data = study.read() if data is None else study.taken(data)
    study.check(data)
    return chosen, data


def _named(study: Study, model: Model | Sequence[Model] | None) -> list[Model]:
    if model is None and study.MODEL is not None:
        return [study.MODEL]
    several = isinstance(model, Sequence) and not isinstance(model, str)
    names: list[Model] = [*model] if several else [model] if model is not None else []  # type: ignore[misc]
    if not names:
        raise ValueError("No model is named: give one, or several.")
    for one in names:
        if isinstance(one, ServedModel) and not study.SERVED:
            raise ValueError(
                f"{one.model!r} is served and gives text only; xlens {study.COMMAND} needs the "
                "model itself: load it with xlens.load."
            )
    return names


def check_model(study: Study, data: Any, place: Place) -> None:
    """Refuse a model that isn't there, or that can't be asked this."""
    if place.source is None and place.served is None:
        return
    if not study.OUTLINED:
        return
    try:
        study.check(data, place.outline())
    except ValueError as error:
        raise ValueError(f"{place.name}: {error}") from error
