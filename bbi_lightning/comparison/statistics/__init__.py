"""The statistics of a comparison: pure functions of arrays, so that they can be checked against references.

Random numbers come from a seed, so the same runs give the same page. The defaults are chosen for what
optimizer studies have: five to twenty replicates and a few dozen trials an arm.

    intervals    mean, median, interquartile mean; over one task or several
    pairs        paired differences, their test and size; probability of improvement; Holm's correction
    search       best after k trials, the choice of the best, how forgiving the tuning is
    targets      steps and time to a target, with runs that never get there
    profiles     distributions of scores over tasks; costs against the cheapest arm
    sensitivity  shares of variance of the searched parameters
    matched      generalisation at matched training loss
    planning     how many seeds would settle it
"""

from __future__ import annotations

from bbi_lightning.comparison.statistics.intervals import (
    Array,
    Direction,
    Estimate,
    Statistic,
    iqm_estimate,
    mean_estimate,
    median_estimate,
    stratified_estimate,
)
from bbi_lightning.comparison.statistics.matched import (
    MatchedMetric,
    matched_metric,
)
from bbi_lightning.comparison.statistics.pairs import (
    PairedDifference,
    effect_size,
    holm,
    improvement_over_tasks,
    paired_difference,
    paired_effect,
    probability_of_improvement,
    sign_flip_test,
)
from bbi_lightning.comparison.statistics.planning import (
    SeedPlan,
    seeds_needed,
)
from bbi_lightning.comparison.statistics.profiles import (
    Profile,
    dolan_more,
    performance_profile,
)
from bbi_lightning.comparison.statistics.search import (
    TuningCurve,
    expected_best,
    rank_trials,
    share_within,
    tuning_curve,
)
from bbi_lightning.comparison.statistics.sensitivity import (
    Importance,
    functional_anova,
)
from bbi_lightning.comparison.statistics.targets import (
    Survival,
    first_passage,
    kaplan_meier,
    log_rank,
    restricted_mean,
)

__all__ = [
    "Array",
    "Direction",
    "Estimate",
    "Importance",
    "MatchedMetric",
    "PairedDifference",
    "Profile",
    "SeedPlan",
    "Statistic",
    "Survival",
    "TuningCurve",
    "dolan_more",
    "effect_size",
    "expected_best",
    "first_passage",
    "functional_anova",
    "holm",
    "improvement_over_tasks",
    "iqm_estimate",
    "kaplan_meier",
    "log_rank",
    "matched_metric",
    "mean_estimate",
    "median_estimate",
    "paired_difference",
    "paired_effect",
    "performance_profile",
    "probability_of_improvement",
    "rank_trials",
    "restricted_mean",
    "seeds_needed",
    "share_within",
    "sign_flip_test",
    "stratified_estimate",
    "tuning_curve",
]
