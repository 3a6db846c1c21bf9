"""`forecast`: what a run would make, and about how long that would take."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from xlens.checks import typed
from xlens.models import HookedModel, hub
from xlens.models.sources import Outline
from xlens.served import ServedModel
from xlens.studies.loading import Loading
from xlens.studies.running.asked import asked_of, check_models
from xlens.studies.running.fp32_sample import Sampled
from xlens.studies.running.places import Model, Place
from xlens.studies.serving import Serving
from xlens.studies.study import Study
from xlens.studies.work import Plan, flops_of


@typed
def forecast(
    study: Study,
    model: Model | Sequence[Model] | None = None,
    *,
    data: Any = None,
    loading: Loading | None = None,
    serving: Serving | None = None,
) -> dict[str, Plan]:
    """What `run` would make of each model, and about how long that would take; nothing is run.

    A model that is named isn't loaded: its tokenizer and config are enough. Time is estimated for
    this machine as it is now, whatever it is doing besides.

    Args:
        study: What is asked.
        model: As for `run`; so are the others.
        data: What is asked about.
        loading: How models that are named would be loaded.
        serving: How models behind endpoints would be asked.

    Returns:
        By the name of the model's folder.

    Raises:
        ValueError: what `run` refuses before a model is loaded.
    """
    loading = loading or Loading()
    study, chosen, data = asked_of(study, model, data, loading, serving or Serving())
    check_models(study, data, chosen)
    sampled = Sampled.of(study, data, chosen, loading.fp32_sample, None)
    return {
        place.folder: sampled.planned(_plan(study, data, place, loading), place) for place in chosen
    }


def _plan(study: Study, data: Any, place: Place, loading: Loading) -> Plan:
    if isinstance(place.there, ServedModel):
        return study.plan(data)
    if isinstance(model := place.there, HookedModel):
        return study.plan(data, model, flops=flops_of(model.device, model.dtype))
    device = torch.device(loading.main_device)
    # What most checkpoints are kept in, where their own dtype is asked for.
    dtype = getattr(torch, "bfloat16" if loading.dtype == "auto" else loading.dtype)
    flops = flops_of(device, dtype) if loading.executor == "local" else None
    outline, source = place.outline(), place.source
    assert isinstance(outline, Outline) and source is not None
    plan = study.plan(data, outline, flops=flops)
    if source.kind != "hub" or source.revision is None:
        return plan
    return replace(plan, fetched=hub.size(source.location, source.revision))
