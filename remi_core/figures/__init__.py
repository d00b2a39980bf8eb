"""Figures of the book: pure functions from arrays and tables to a matplotlib figure with alternative text."""

from remi_core.figures.alt import describe, with_alt
from remi_core.figures.answer import plot_way_back
from remi_core.figures.audit import (
    plot_centring,
    plot_curve_as_published,
    plot_switches,
    plot_unreset_list,
)
from remi_core.figures.behaviour import plot_dataset_table, plot_index, plot_next_tokens, plot_token_heat_map
from remi_core.figures.calibration import plot_coverage, plot_intervals
from remi_core.figures.causes import plot_doses, plot_edits, plot_transfer
from remi_core.figures.components import plot_pair_cosines
from remi_core.figures.contexts import plot_context_log_odds
from remi_core.figures.costs import plot_causes, plot_growth, plot_ratios
from remi_core.figures.cures import plot_cures, plot_geometry
from remi_core.figures.direction import plot_erosion, plot_projections, plot_separation, plot_written_tokens
from remi_core.figures.doses import plot_tuning_doses
from remi_core.figures.effect import plot_primary_effect
from remi_core.figures.few import plot_shares_by_count, plot_small_pictures
from remi_core.figures.gradients import plot_gradient_components, plot_gradient_cosines, plot_group_cosines
from remi_core.figures.layers import plot_data_distances, plot_erosion_by_set, plot_triangle
from remi_core.figures.losses import plot_loss_components, plot_loss_cosines, plot_variance_shares
from remi_core.figures.matched import plot_influence, plot_ladder, plot_parts, plot_real_steps
from remi_core.figures.organism import (
    plot_care_against_register,
    plot_class_log_odds,
    plot_class_probabilities,
    plot_sampled_rates,
)
from remi_core.figures.output import Shown, figure_html, show, shown, svg_bytes
from remi_core.figures.patching import plot_gains, plot_share, plot_stitching
from remi_core.figures.phases import plot_phases
from remi_core.figures.rates import plot_rates
from remi_core.figures.replies import plot_reply_pairs, plot_reply_shifts
from remi_core.figures.reversion import plot_beyond, plot_change_parts, plot_control_shares
from remi_core.figures.robustness import plot_movement
from remi_core.figures.style import use_style
from remi_core.figures.subspace import (
    plot_component_cosines,
    plot_scree,
    plot_similarity_by_layer,
    plot_similarity_by_pair,
)
from remi_core.figures.tokens import visible_token
from remi_core.figures.training import plot_training
from remi_core.figures.worlds import plot_worlds

__all__ = [
    "Shown",
    "describe",
    "figure_html",
    "plot_beyond",
    "plot_care_against_register",
    "plot_centring",
    "plot_change_parts",
    "plot_causes",
    "plot_class_log_odds",
    "plot_class_probabilities",
    "plot_component_cosines",
    "plot_context_log_odds",
    "plot_control_shares",
    "plot_coverage",
    "plot_cures",
    "plot_curve_as_published",
    "plot_data_distances",
    "plot_dataset_table",
    "plot_doses",
    "plot_edits",
    "plot_erosion",
    "plot_erosion_by_set",
    "plot_gains",
    "plot_geometry",
    "plot_gradient_components",
    "plot_gradient_cosines",
    "plot_group_cosines",
    "plot_growth",
    "plot_index",
    "plot_influence",
    "plot_intervals",
    "plot_ladder",
    "plot_loss_components",
    "plot_loss_cosines",
    "plot_movement",
    "plot_next_tokens",
    "plot_pair_cosines",
    "plot_parts",
    "plot_phases",
    "plot_primary_effect",
    "plot_projections",
    "plot_rates",
    "plot_ratios",
    "plot_real_steps",
    "plot_reply_pairs",
    "plot_reply_shifts",
    "plot_sampled_rates",
    "plot_scree",
    "plot_separation",
    "plot_share",
    "plot_shares_by_count",
    "plot_similarity_by_layer",
    "plot_similarity_by_pair",
    "plot_small_pictures",
    "plot_stitching",
    "plot_switches",
    "plot_token_heat_map",
    "plot_training",
    "plot_transfer",
    "plot_triangle",
    "plot_tuning_doses",
    "plot_unreset_list",
    "plot_variance_shares",
    "plot_way_back",
    "plot_worlds",
    "plot_written_tokens",
    "show",
    "shown",
    "svg_bytes",
    "use_style",
    "visible_token",
    "with_alt",
]
