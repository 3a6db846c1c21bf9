"""Figures: results drawn with Plotly, nothing computed; files with `write_figure`."""

from plotly.graph_objects import Figure

from xlens._lazy import listed
from xlens.figures.agreement import agreement_matrix
from xlens.figures.alignment import (
    gain_bars,
    training_loss,
    twin_entropies,
    twin_maps,
    twin_similarity,
)
from xlens.figures.atlas import dose_response, loss_curve
from xlens.figures.bands import report_colors
from xlens.figures.causal import causal_curves
from xlens.figures.choices import latent_share
from xlens.figures.compared import compared_points
from xlens.figures.conditions import condition_label, controls, pairs_overview
from xlens.figures.dissociations import dissociation_curves
from xlens.figures.export import StaticExportError, write_figure, write_figures
from xlens.figures.facts import fact_bars, fact_curves, fact_groups, fact_relations
from xlens.figures.frequency import frequency_curves, frequency_groups, threshold_bars
from xlens.figures.lens import composition_bars, language_curves, state_curves
from xlens.figures.lens_readings import lens_readings
from xlens.figures.likeness import likeness_by_layer, likeness_over_training
from xlens.figures.maps import language_map_animation, language_maps
from xlens.figures.neurons import neuron_losses, neuron_places
from xlens.figures.page import figure_block, page
from xlens.figures.phase_depth import depth_by_language, segment_relevance, stability_scatter
from xlens.figures.phases import (
    paired_curves,
    paired_effects,
    phase_boundaries,
    phase_curves,
)
from xlens.figures.reading import error_bars, ratio_scatter, reading_bars, reading_matrix
from xlens.figures.scripts import script_columns, script_probe_curves
from xlens.figures.shares import language_shares_curves
from xlens.figures.steering import languages_said, steering_effects, steering_surface
from xlens.figures.steering_outputs import output_scores, output_surface
from xlens.figures.subspace import pair_curves, pair_matrix, probe_curves
from xlens.figures.theme import language_colors, language_label
from xlens.figures.traces import trace_table, trace_text

__all__ = [
    "Figure",
    "StaticExportError",
    "agreement_matrix",
    "causal_curves",
    "compared_points",
    "composition_bars",
    "condition_label",
    "controls",
    "depth_by_language",
    "dissociation_curves",
    "dose_response",
    "error_bars",
    "fact_bars",
    "fact_curves",
    "fact_groups",
    "fact_relations",
    "figure_block",
    "frequency_curves",
    "frequency_groups",
    "gain_bars",
    "language_colors",
    "language_curves",
    "language_label",
    "language_map_animation",
    "language_maps",
    "language_shares_curves",
    "languages_said",
    "latent_share",
    "lens_readings",
    "likeness_by_layer",
    "likeness_over_training",
    "loss_curve",
    "neuron_losses",
    "neuron_places",
    "output_scores",
    "output_surface",
    "page",
    "pair_curves",
    "pair_matrix",
    "paired_curves",
    "paired_effects",
    "pairs_overview",
    "phase_boundaries",
    "phase_curves",
    "probe_curves",
    "ratio_scatter",
    "reading_bars",
    "reading_matrix",
    "report_colors",
    "script_columns",
    "script_probe_curves",
    "segment_relevance",
    "stability_scatter",
    "state_curves",
    "steering_effects",
    "steering_surface",
    "threshold_bars",
    "trace_table",
    "trace_text",
    "training_loss",
    "twin_entropies",
    "twin_maps",
    "twin_similarity",
    "write_figure",
    "write_figures",
]
__dir__ = listed(__all__)
