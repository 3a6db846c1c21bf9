"""`Result.plot`: which figure is a result's own; where there is none, the table's first rows."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from xlens.acquisition import FactCurves, FactRecall, FrequencyResponse, Transfer
from xlens.acquisition.transfer import TransferCurves
from xlens.checks import typed
from xlens.comparison import CompareResult
from xlens.consistency import ConsistencyResult, Dissociation
from xlens.figures import theme
from xlens.figures.agreement import agreement_matrix
from xlens.figures.alignment import gain_bars, training_loss, twin_entropies, twin_similarity
from xlens.figures.atlas import dose_response, loss_curve
from xlens.figures.causal import causal_curves
from xlens.figures.choices import latent_share
from xlens.figures.compared import compared_points
from xlens.figures.dissociations import dissociation_curves
from xlens.figures.facts import fact_bars, fact_curves
from xlens.figures.frequency import frequency_curves
from xlens.figures.lens import language_curves
from xlens.figures.lens_readings import lens_readings
from xlens.figures.likeness import likeness_by_layer, likeness_over_training
from xlens.figures.maps import language_maps
from xlens.figures.neurons import neuron_losses, neuron_places
from xlens.figures.phase_depth import segment_relevance, stability_scatter
from xlens.figures.phases import paired_curves, paired_effects, phase_boundaries, phase_curves
from xlens.figures.reading import reading_bars
from xlens.figures.scripts import script_columns, script_probe_curves
from xlens.figures.shares import language_shares_curves
from xlens.figures.steering import steering_surface
from xlens.figures.steering_outputs import output_scores
from xlens.figures.subspace import pair_curves, probe_curves
from xlens.figures.traces import trace_table
from xlens.gain import Gain
from xlens.lens import (
    CausalSummary,
    LanguageShares,
    LensReadings,
    LensResult,
    LensSummary,
    TraceResult,
    TwinCurves,
)
from xlens.neurons import LanguageNeurons, NeuronEffects
from xlens.phases import (
    Curves,
    CurveSummary,
    DepthResult,
    PairedCurves,
    PairedEffects,
    PhaseResult,
    StabilityCorrelation,
)
from xlens.results import Result
from xlens.steering import OutputSteering, SteeringResult
from xlens.subspace import (
    LanguageMap,
    LanguagePairs,
    LanguageProbe,
    ScriptControl,
    ScriptProbe,
    TwinStates,
)
from xlens.tasks.choices import LatentOptions, LatentSummary
from xlens.tasks.xmrc import ReadingResult
from xlens.testbed.atlas.build import TrainingCurves
from xlens.testbed.atlas.evaluate import AtlasReport
from xlens.training.fit import Training

ROWS = 20
_HIDDEN = ("tokens", "cluster")

OWN: dict[type[Result], Callable[..., go.Figure]] = {
    AtlasReport: dose_response,
    CausalSummary: causal_curves,
    CompareResult: compared_points,
    ConsistencyResult: agreement_matrix,
    CurveSummary: phase_curves,
    DepthResult: segment_relevance,
    Dissociation: dissociation_curves,
    FactCurves: fact_curves,
    FactRecall: fact_bars,
    FrequencyResponse: frequency_curves,
    Gain: gain_bars,
    LanguageMap: language_maps,
    LanguageNeurons: neuron_places,
    LanguagePairs: pair_curves,
    LanguageProbe: probe_curves,
    LatentSummary: latent_share,
    LanguageShares: language_shares_curves,
    LensReadings: lens_readings,
    LensSummary: language_curves,
    NeuronEffects: neuron_losses,
    PairedCurves: paired_curves,
    PairedEffects: paired_effects,
    OutputSteering: output_scores,
    PhaseResult: phase_boundaries,
    ReadingResult: reading_bars,
    ScriptControl: script_columns,
    ScriptProbe: script_probe_curves,
    StabilityCorrelation: stability_scatter,
    SteeringResult: steering_surface,
    TraceResult: trace_table,
    TrainingCurves: loss_curve,
    Transfer: likeness_by_layer,
    TransferCurves: likeness_over_training,
    TwinCurves: twin_entropies,
    TwinStates: twin_similarity,
}
"""The figure of each kind, from the result alone or with options that the figure names."""

# Figures are drawn of means; these results hold what the means are of.
SUMMED = (Curves, LatentOptions, LensResult)


@typed
def plot(result: Result, **options: Any) -> go.Figure:
    """The figure of a result.

    Args:
        result: Of any kind.
        **options: Of its figure (`xlens.figures`).

    Raises:
        ValueError: as the figure.
    """
    if isinstance(result, SUMMED):
        return plot(result.summary(), **options)
    if isinstance(result, Training):
        return training_loss({"": result}, **options)
    if isinstance(result, TransferCurves) and "layer" not in options:
        options["layer"] = int(result.table["layer"].max())
    draw = OWN.get(type(result), first_rows)
    return draw(result, **options)


@typed
def first_rows(result: Result, *, rows: int = ROWS) -> go.Figure:
    """The beginning of a result's main table, as it stands.

    Args:
        result: Of any kind.
        rows: Most rows.
    """
    table = result.main_table()
    shown = table.head(rows)
    columns = [name for name in shown if str(name) not in _HIDDEN]
    fig = go.Figure(
        go.Table(
            header={"values": [theme.plain(str(name)) for name in columns], "align": "left"},
            cells={
                "values": [[_cell(value) for value in shown[name]] for name in columns],
                "align": "left",
            },
        )
    )
    more = f"the first {rows} of {len(table)} rows" if len(table) > rows else f"{len(table)} rows"
    return theme.finish(
        fig, title=type(result).__name__, notes=[more], height=30 + 22 * min(rows, len(table))
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:.4g}"
    return theme.plain(theme.isolate(f"{value!s:.60}"))
