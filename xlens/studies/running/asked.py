"""Who is asked what: all that can be refused before a model is loaded is refused here."""

import logging
from collections.abc import Collection, Sequence
from typing import Any

from xlens.errors import InputError
from xlens.served import ServedModel
from xlens.studies.loading import Loading
from xlens.studies.running.places import Model, Place, places
from xlens.studies.serving import Serving
from xlens.studies.study import Study

_log = logging.getLogger(__name__)


def asked_of(
    study: Study,
    model: Model | Sequence[Model] | None,
    data: Any,
    loading: Loading,
    serving: Serving,
) -> tuple[Study, list[Place], Any]:
    """What is asked of whom, and about what; all that can be refused without the weights is.

    Raises:
        ValueError: it was.
    """
    named = _named(study, model, listed=loading.series is not None)
    chosen = places(named, loading, serving, chat=study.asks_chat)
    study = study.of_models([place.name for place in chosen])
    study.check_models({place.name: place.folder for place in chosen})
    data = study.read() if data is None else study.taken(data)
    study.check(data)
    return study, _present(chosen, loading), data


def _present(chosen: list[Place], loading: Loading) -> list[Place]:
    """Those of a series that are there: a revision that was listed once may be gone.

    Raises:
        ValueError: some are gone, unless they are to be left out; all of them are named.
    """
    gone: dict[str, str] = {}
    for place in chosen:
        if place.point is not None:
            try:
                _ = place.source
            except ValueError as error:
                gone[place.name] = str(error)
    left = [place for place in chosen if place.name not in gone]
    if not gone:
        return chosen
    told = f"{len(gone)} of {len(chosen)} checkpoints are not there: {', '.join(gone)}"
    if loading.absent == "error" or not left:
        raise InputError(
            f"{told}. The first: {next(iter(gone.values()))} Take them out, or leave out what is "
            "not there (--absent drop, in Python absent='drop')."
        )
    _log.warning("%s. They are left out.", told)
    return left


def _named(study: Study, model: Model | Sequence[Model] | None, *, listed: bool) -> list[Model]:
    if listed and model:
        raise InputError(
            f"A list of checkpoints (series) names its models itself, beside {model!r}: leave one "
            "of the two out."
        )
    if listed:
        return []
    if not model and study.MODEL is not None:
        return [study.MODEL]
    several = isinstance(model, Sequence) and not isinstance(model, str)
    names: list[Model] = [*model] if several else [model] if model is not None else []  # type: ignore[misc]
    if not names:
        raise InputError(
            "No model is named: give one, or several (model=, --model), or a list of checkpoints "
            "(series=, --series)."
        )
    for one in names:
        if isinstance(one, ServedModel) and not study.SERVED:
            raise InputError(
                f"{one.model!r} is served and gives text only; xlens {study.COMMAND} needs the "
                "model itself: load it with xlens.load."
            )
    return names


def check_models(
    study: Study, data: Any, chosen: Sequence[Place], done: Collection[str] = ()
) -> None:
    """Refuse models that aren't there, that can't be asked this, or not together.

    Args:
        study: What is asked.
        data: What is asked about.
        chosen: The models.
        done: Folders of those that nothing is asked of any more.

    Raises:
        ValueError: there is one.
    """
    for place in chosen:
        if place.folder not in done:
            _check_model(study, data, place)
    if any(place.folder not in done for place in chosen):
        study.check_together({place.name: place.outline for place in chosen})


def _check_model(study: Study, data: Any, place: Place) -> None:
    _ = place.source  # looks for it
    if not study.outlined:
        return
    try:
        study.check(data, place.outline())
    except ValueError as error:
        raise InputError(f"{place.name}: {error}") from error
