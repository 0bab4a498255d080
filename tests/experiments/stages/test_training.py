"""The stages' work in this process: resumed = uninterrupted, bit for bit; what each may look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nas.data
from experiments.plan.cell_plan import CellPlan
from experiments.stages import epochs, retrain, supernet
from experiments.stages.epochs import TRAINING_FILE
from experiments.stages.worker_place import WEIGHTS
from nas.early_bird import EarlyBirdStop
from nas.indicators import bn_scores
from nas.network import Subnet, Supernet
from nas.training import evaluate
from orchestration.jobs.worker import LocalWorkerContext
from tests.experiments.configs import small_plan
from tests.experiments.stage_work import payload, run, run_in_pieces, saved, supernet_of
from tests.interrupted import CrashError, assert_same_value, without_timings


@contextmanager
def dying_in_batch(number: int | None) -> Iterator[list[int]]:
    """Die when the so-and-so-many-th batch, of training or validation, is to be scored.

    Yields the sizes of those that were.
    """
    cross_entropy = torch.nn.functional.cross_entropy
    sizes: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        if len(sizes) + 1 == number:
            raise CrashError
        sizes.append(len(args[1]))
        return cross_entropy(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "cross_entropy", counted)
        yield sizes


def assert_same_end(ours: LocalWorkerContext, theirs: LocalWorkerContext) -> None:
    """Equal weights, optimiser state and history, to the bit."""
    assert without_timings(ours.history) == without_timings(theirs.history)
    for file in (WEIGHTS, TRAINING_FILE):
        assert_same_value(saved(ours, file), saved(theirs, file))


@pytest.fixture
def cell(tmp_path: Path) -> CellPlan:
    return small_plan(tmp_path)


# --- supernet and retrain ---


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"supernet__trainable": "all", "supernet__sampler": "fair", "supernet__clip_norm": 1.0},
        {"supernet__trainable": "last_bn", "supernet__early_bird": {"window": 1}},
    ],
    ids=["bn", "all, fair", "last_bn, early bird"],
)
def test_an_interrupted_supernet_is_the_uninterrupted_one(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    stage = supernet_of(small_plan(tmp_path, **changes))
    config = payload(stage, tmp_path)
    whole = run(supernet.work, config, tmp_path / "whole")
    pieces = run_in_pieces(supernet.work, config, tmp_path / "pieces")
    assert_same_end(whole, pieces)
    assert len(whole.history) == 3
    losses = [row["train/loss"] for row in whole.history]
    assert len(set(losses)) == 3


def test_a_supernet_that_dies_within_an_epoch_repeats_it(cell: CellPlan, tmp_path: Path) -> None:
    config = payload(supernet_of(cell), tmp_path)
    whole = run(supernet.work, config, tmp_path / "whole")
    for step in (1, 2, 4, 6):
        folder = tmp_path / f"step-{step}"
        with dying_in_batch(step), pytest.raises(CrashError):
            run(supernet.work, config, folder)
        assert_same_end(whole, run(supernet.work, config, folder))


def test_what_was_saved_within_an_epoch_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epochs, "_STEPS_TO_TIME", 1)
    stage = supernet_of(small_plan(tmp_path, supernet__batch_size=16))
    config = payload(stage, tmp_path)
    whole = run(supernet.work, config, tmp_path / "whole")
    config["place"]["checkpoint_minutes"] = 1e-9  # from the second step of an epoch on, every one
    with dying_in_batch(8 + 5), pytest.raises(CrashError):
        run(supernet.work, config, tmp_path / "cut")
    with dying_in_batch(None) as sizes:
        again = run(supernet.work, config, tmp_path / "cut")
    assert sizes == [16] * (4 + 8)  # of the second epoch the rest, and the third
    assert_same_end(whole, again)


def test_an_interrupted_retraining_is_the_uninterrupted_one(cell: CellPlan, tmp_path: Path) -> None:
    config = payload(cell.retrain(cell.baseline_archs[0]), tmp_path)
    whole = run(retrain.work, config, tmp_path / "whole")
    assert_same_end(whole, run_in_pieces(retrain.work, config, tmp_path / "pieces"))
    for num_batches in (2, 3, 7):  # training, validation, and training of the second epoch
        folder = tmp_path / f"within-{num_batches}"
        with dying_in_batch(num_batches), pytest.raises(CrashError):
            run(retrain.work, config, folder)
        assert_same_end(whole, run(retrain.work, config, folder))


def test_seeds_and_architectures_give_other_weights(tmp_path: Path, cell: CellPlan) -> None:
    other = small_plan(tmp_path, seed=1)
    ours = run(supernet.work, payload(supernet_of(cell), tmp_path), tmp_path / "0")
    theirs = run(supernet.work, payload(supernet_of(other), tmp_path), tmp_path / "1")
    assert ours.history[0]["train/loss"] != theirs.history[0]["train/loss"]


def test_recorded_scores_are_those_of_the_saved_weights(cell: CellPlan, tmp_path: Path) -> None:
    context = run(supernet.work, payload(supernet_of(cell), tmp_path), tmp_path / "job")
    network = Supernet(cell.space, seed=cell.config.seed)
    network.load_state_dict(saved(context))
    recorded = supernet.recorded_scores(context.history[-1], cell.space)
    np.testing.assert_array_equal(recorded, bn_scores(network))
    assert np.isnan(recorded[1]).all()  # the layer that is fixed to the identity
    first = supernet.recorded_scores(context.history[0], cell.space)
    assert not np.array_equal(first, recorded, equal_nan=True)


def test_in_scope_bn_everything_else_keeps_its_initial_value(
    cell: CellPlan, tmp_path: Path
) -> None:
    context = run(supernet.work, payload(supernet_of(cell), tmp_path), tmp_path / "job")
    network = Supernet(cell.space, seed=cell.config.seed, gamma_init=0.5)
    batch_norms = {
        f"{name}.{part}"
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d)
        for part, _ in module.named_parameters()
    }
    moved = {
        name
        for name, parameter in network.named_parameters()
        if not torch.equal(parameter, saved(context)[name])
    }
    assert moved
    assert moved <= batch_norms


def test_an_early_bird_stop_ends_training_at_the_same_epoch_after_any_restart(
    tmp_path: Path,
) -> None:
    stage = supernet_of(
        small_plan(
            tmp_path,
            supernet__epochs=30,
            supernet__lr=0.01,
            supernet__early_bird={"window": 2, "threshold": 0.9},
        )
    )
    config = payload(stage, tmp_path)
    whole = run(supernet.work, config, tmp_path / "whole")
    # The law, from the recorded scores and a stop of the test's own.
    space = small_plan(tmp_path).space
    stop = EarlyBirdStop(window=2, threshold=0.9)
    verdicts = [stop.update(supernet.recorded_scores(row, space)) for row in whole.history]
    assert verdicts == [False] * (len(verdicts) - 1) + [True]
    assert 3 <= len(verdicts) < 30

    pieces = run_in_pieces(supernet.work, config, tmp_path / "pieces")
    assert_same_end(whole, pieces)
    # Started once more, it neither trains nor reports.
    with dying_in_batch(1):
        again = run(supernet.work, config, tmp_path / "pieces")
    assert_same_end(whole, again)


def test_test_accuracy_is_that_of_the_saved_network(cell: CellPlan, tmp_path: Path) -> None:
    arch = cell.baseline_archs[0]
    context = run(retrain.work, payload(cell.retrain(arch), tmp_path), tmp_path / "job")
    subnet = Subnet(cell.space, arch, seed=123)
    subnet.load_state_dict(saved(context))
    data = nas.data.load_data("digits", max_train_images=128)
    result = evaluate(subnet, data.test.batches(100, training=False))
    last = context.history[-1]
    assert last["test/top1"] == result.top1
    assert last["test/loss"] == pytest.approx(result.loss, rel=1e-5)
    assert last["test/num_images"] == len(data.test)
    assert all("test/top1" not in row for row in context.history[:-1])
