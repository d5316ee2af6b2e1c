import optuna
import pytest
import toy_task

from bbi_lightning.sweeps.pruners import Pruner, parse_pruner, pruner_of
from bbi_lightning.sweeps.section import SweepError
from bbi_lightning.sweeps.spec import parse_spec
from bbi_lightning.sweeps.study import Studies
from bbi_lightning.sweeps.trial import Outcome, Owner

ME = Owner("me", "1")
EPOCHS = 9


def studies(tmp_path, pruner, trials=9, arms=("a",), count=1, **objective):
    space = {"x": {"low": 0.0, "high": 1.0}}
    sweep = toy_task.spec(
        search={"sampler": "halton", "trials": trials, "pruner": pruner},
        replicates={"count": count},
        objective={"metric": "val/acc", "direction": "maximize"} | objective,
        arms={arm: {"space": space} for arm in arms},
    )
    made = Studies(tmp_path / "journal.log", sweep)
    made.plan()
    return made


def train(sweep, height, sign=1.0):
    """Run a trial whose value after e epochs is sign · height · e; returns how many epochs it had."""
    trial = sweep.claim(ME, lambda owner: True)
    for epoch in range(1, EPOCHS + 1):
        if sweep.report(trial, epoch, sign * height * epoch):
            sweep.tell(trial, Outcome("pruned", value=sign * height * epoch))
            return epoch
    sweep.tell(trial, Outcome("finished", value=sign * height * EPOCHS))
    return EPOCHS


@pytest.mark.parametrize(
    ("data", "pruner"),
    [
        ("asha", Pruner("asha", 1, reduction=3)),
        ({"kind": "asha", "min_epochs": 2, "reduction": 4}, Pruner("asha", 2, reduction=4)),
        ("median", Pruner("median", 3, min_trials=5)),
        ({"kind": "hyperband", "max_epochs": 27}, Pruner("hyperband", 1, 27, reduction=3)),
    ],
)
def test_what_is_written_is_read(data, pruner):
    assert parse_pruner("search.pruner", data) == pruner
    assert parse_pruner("search.pruner", pruner.plain()) == pruner
    sweep = toy_task.spec(search={"trials": 4, "pruner": data})
    assert parse_spec(sweep.plain()) == sweep
    assert pruner_of(pruner) is not None


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (3, "search.pruner=3 is not a pruner: use one of asha, hyperband, median"),
        ("ahsa", "search.pruner.kind=ahsa is unknown: did you mean asha?"),
        (
            {"kind": "asha", "min_trials": 5},
            "search.pruner.min_trials is not a key of a sweep: use one of kind, min_epochs, reduction",
        ),
        (
            {"kind": "asha", "reduction": 1},
            "search.pruner.reduction=1 is too small: it must be at least 2",
        ),
        (
            {"kind": "median", "min_epochs": 0},
            "search.pruner.min_epochs=0 is too small: it must be at least 1",
        ),
        ("hyperband", "search.pruner.max_epochs is missing: every sweep needs it"),
        (
            {"kind": "hyperband", "min_epochs": 4, "max_epochs": 9},
            "search.pruner.max_epochs=9 leaves nothing to decide: it must be at least "
            "min_epochs · reduction = 12",
        ),
    ],
)
def test_mistakes_get_one_sentence(data, sentence):
    with pytest.raises(SweepError) as error:
        toy_task.spec(search={"trials": 4, "pruner": data})
    assert str(error.value) == sentence


def test_without_a_pruner_every_trial_is_run_to_its_end(tmp_path):
    sweep = studies(tmp_path, None)
    assert [train(sweep, height) for height in range(9, 0, -1)] == [EPOCHS] * 9


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_asha_stops_what_is_worse_than_the_best_third_at_each_rung(tmp_path, direction):
    sign = 1.0 if direction == "maximize" else -1.0
    sweep = studies(tmp_path, "asha", direction=direction)
    epochs = [train(sweep, height, sign) for height in (5, 1, 6, 2, 3, 4, 7, 0, 8)]
    assert epochs[0] == epochs[2] == epochs[6] == epochs[8] == EPOCHS, "each the best so far"
    assert [epochs[i] for i in (1, 3, 4, 7)] == [1, 1, 1, 1]


def test_median_stops_what_is_below_the_median_after_its_patience(tmp_path):
    sweep = studies(tmp_path, {"kind": "median", "min_epochs": 3, "min_trials": 4})
    epochs = [train(sweep, height) for height in (4, 1, 3, 2, 0, 9)]
    assert epochs == [EPOCHS, EPOCHS, EPOCHS, EPOCHS, 3, EPOCHS]


def test_hyperband_stops_some_and_lets_slow_starters_go_further(tmp_path):
    kind = {"kind": "hyperband", "min_epochs": 1, "max_epochs": 9, "reduction": 3}
    sweep = studies(tmp_path, kind, trials=24)
    epochs = [train(sweep, height) for height in range(24, 0, -1)]
    assert set(epochs) == {1, 3, 9}


def test_a_pruned_trial_is_a_result_and_never_the_best(tmp_path):
    sweep = studies(tmp_path, "asha", trials=3)
    assert [train(sweep, height) for height in (2, 1, 1)] == [EPOCHS, 1, 1]
    pruned = [trial for trial in sweep.due("a") if trial.state == "pruned"]
    assert [trial.outcome.value for trial in pruned] == [1.0, 1.0]
    assert all(trial.ended for trial in pruned)
    (replicate,) = [trial for trial in sweep.due("a") if trial.job.phase == "replicate"]
    assert replicate.job.of == 0
    again = Studies(tmp_path / "journal.log", sweep.spec)
    assert again.due("a") == sweep.due("a")


def test_a_replicate_is_never_stopped(tmp_path):
    sweep = studies(tmp_path, "asha", trials=2)
    train(sweep, 2)
    train(sweep, 1)
    assert train(sweep, 0) == EPOCHS


def test_reporting_an_epoch_again_changes_nothing(tmp_path):
    sweep = studies(tmp_path, "asha")
    trial = sweep.claim(ME, lambda owner: True)
    assert not sweep.report(trial, 1, 0.5)
    assert not sweep.report(trial, 1, 0.1)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    )
    study = optuna.load_study(storage=storage, study_name="toy/a")
    assert study.trials[0].intermediate_values == {1: 0.5}


def test_nothing_is_reported_for_a_trial_that_is_anothers(tmp_path):
    sweep = studies(tmp_path, "asha")
    train(sweep, 9)
    trial = sweep.claim(ME, lambda owner: True)
    sweep.claim(Owner("other", "1"), lambda owner: False)
    assert not sweep.report(trial, 1, 0.0)
