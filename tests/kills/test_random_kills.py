"""Killed at twenty random moments, a run is the run that was never killed, to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kills.comparison import assert_as_if_never_killed
from kills.harness import MANY, Training
from kills.server import Warm

SMALL = ["model=mlp", "model.widths=[32]", "runtime.log_every=3"]

CASES = {
    "bbi: bounces, dropout, augmentation, accumulation": [
        *SMALL,
        "model.dropout=0.2",
        "data.augment=true",
        "trainer.accumulate_grad_batches=2",
        "optim.bounce_every=6",
        "optim.n_bounces=8",
        "trainer.max_epochs=24",
    ],
    "sgd: batch norm, cosine, a row a step": [
        "optim=sgd",
        "scheduler=cosine",
        "model.channels=[4,8]",
        "runtime.log_every=1",
        "trainer.max_epochs=14",
    ],
    "adamw: warm-up, dropout": [
        *SMALL,
        "optim=adamw",
        "scheduler=cosine",
        "scheduler.warmup=0.2",
        "model.dropout=0.2",
        "trainer.max_epochs=14",
    ],
}

TWO_RANKS = [
    "model.channels=[4,8]",  # with batch norm
    "model.dropout=0.2",
    "optim=ecdsep",
    "optim.nu=1e-3",
    "runtime.log_every=3",
    "data.augment=true",
    "trainer.accumulate_grad_batches=2",
    "trainer.max_epochs=24",
]

MEMBERS = {
    "bi": [],
    "ecdsep": ["optim.nu=1e-3"],
    "ecd_q1": ["optim.nu=1e-3"],
    "log_ecd": ["optim.bounce_every=5", "optim.n_bounces=5"],
    "mass_ecd": ["optim.bounce_every=5", "optim.n_bounces=5"],
    "adam": [],
}

VARIANTS = {
    "double precision": ["trainer.precision=64-true"],
    "mixed precision": ["trainer.precision=bf16-mixed"],
    "half precision": ["trainer.precision=bf16-true"],
    "clipping": ["trainer.gradient_clip_val=0.5", "optim=sgd"],
    "step limit within an epoch": ["trainer.max_steps=60"],
    "validation every other epoch": ["trainer.check_val_every_n_epoch=2"],
    "no validation": ["data.val_size=0"],
    "the best is the one of lowest loss": ["checkpoint.keep_best=val/loss"],
}


def assert_kills_leave_no_trace(
    warm: Warm,
    root: Path,
    overrides: list[str],
    *,
    times: int,
    seed: int,
    ranks: int = 1,
    varied: Sequence[str] = (),
) -> None:
    whole = Training(warm, root / "whole", overrides, ranks)
    whole.attempt()
    killed = Training(warm, root / "killed", overrides, ranks, varied=varied)
    killed.kill_often(times, seed)
    assert_as_if_never_killed(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_twenty_times_is_as_if_never_killed(case: str, warm: Warm, tmp_path: Path) -> None:
    assert_kills_leave_no_trace(warm, tmp_path, CASES[case], times=MANY, seed=len(case))


@pytest.mark.slow
def test_data_workers_do_not_matter(warm: Warm, tmp_path: Path, image_folder: Path) -> None:
    """Workers are ahead of training by some batches when it is killed; their number may change."""
    workers = [f"data.num_workers={n}" for n in (0, 1, 3)]
    overrides = [
        "data=imagenet",
        f"data.data_dir={image_folder}",
        "data.num_classes=3",
        "data.image_size=16",
        "data.num_workers=2",
        "data.batch_size=8",
        "data.val_size=16",
        "model.channels=[4,8]",
        "model.dropout=0.2",
        "optim.bounce_every=10",
        "optim.n_bounces=8",
        "runtime.log_every=3",
        "trainer.max_epochs=20",
    ]
    assert_kills_leave_no_trace(warm, tmp_path, overrides, times=MANY, seed=1, varied=workers)


@pytest.mark.slow
def test_two_ranks_are_as_if_never_killed(warm: Warm, tmp_path: Path) -> None:
    """Where one of them is killed, the other one leaves by itself."""
    assert_kills_leave_no_trace(warm, tmp_path, TWO_RANKS, times=MANY, seed=2, ranks=2)


@pytest.mark.slow
def test_shards_of_two_ranks_are_as_if_never_killed(warm: Warm, tmp_path: Path) -> None:
    """Each writes its part of a checkpoint, and may be killed while it does."""
    overrides = [*SMALL, "runtime.strategy=fsdp", "optim.bounce_every=5", "trainer.max_epochs=5"]
    assert_kills_leave_no_trace(warm, tmp_path, overrides, times=5, seed=6, ranks=2)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_optimizer_survives_some_kills(member: str, warm: Warm, tmp_path: Path) -> None:
    overrides = [*SMALL, f"optim={member}", *MEMBERS[member], "trainer.max_epochs=4"]
    assert_kills_leave_no_trace(warm, tmp_path, overrides, times=3, seed=3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_way_to_train_survives_some_kills(variant: str, warm: Warm, tmp_path: Path) -> None:
    overrides = [*SMALL, "trainer.max_epochs=4", *VARIANTS[variant]]
    assert_kills_leave_no_trace(warm, tmp_path, overrides, times=3, seed=4)
