from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.jobs.worker import (
    LEDGER_NAME,
    Ledger,
    LocalWorkerContext,
    naming_batch_sizes,
)
from tests.interrupted import assert_same_value, in_pieces
from tests.orchestration import jobs


def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    import torch

    config = {"epochs": 4, "seed": 3}
    whole = LocalWorkerContext(tmp_path / "whole")
    jobs.train_torch(config, whole)
    resumed = in_pieces(partial(jobs.train_torch, config), tmp_path / "cut")
    assert resumed.history == whole.history
    assert [row["epoch"] for row in whole.history] == [1, 2, 3, 4]
    states = []
    for context in (whole, resumed):
        assert context.checkpoint is not None
        states.append(torch.load(context.checkpoint / "state.pt", weights_only=True))
    assert_same_value(*states)


def test_an_epoch_without_a_checkpoint_is_repeated(tmp_path: Path) -> None:
    context = LocalWorkerContext(tmp_path)
    context.report({"loss": 1.0}, lambda folder: None)
    context.report({"loss": 2.0})
    again = LocalWorkerContext(tmp_path)
    assert again.history == [{"epoch": 1, "loss": 1.0}]


def test_a_failed_save_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    context = LocalWorkerContext(tmp_path)

    def good(folder: Path) -> None:
        (folder / "a").write_text("1")

    def full(folder: Path) -> None:
        (folder / "a").write_text("2")
        raise OSError("no space left on device")

    context.report({"loss": 1.0}, good)
    with pytest.raises(OSError, match="no space"):
        context.report({"loss": 2.0}, full)
    with LocalWorkerContext(tmp_path).restore() as folder:
        assert folder is not None
        assert (folder / "a").read_text() == "1"


def test_a_gpu_that_is_too_small_is_a_wrong_request() -> None:
    import torch

    config = {"stage": {"supernet": {"batch_size": 512, "lr": 1.0}}, "place": {"root": "/data"}}
    for error, words in (
        (torch.OutOfMemoryError("9 GiB wanted"), "^The GPU's memory is too small .9 GiB wanted."),
        (torch.OutOfMemoryError(), r"smaller batch \(supernet.batch_size is 512\), more workers"),
    ):
        with pytest.raises(ValueError, match=words), naming_batch_sizes(config):
            raise error
    with pytest.raises(RuntimeError, match="^another$"), naming_batch_sizes(config):
        raise RuntimeError("another")


def test_epochs_are_reported_in_order() -> None:
    ledger = Ledger()
    assert ledger.append({"loss": 3}) == {"epoch": 1, "loss": 3.0}
    assert ledger.append({"epoch": 2, "loss": np.float64(2.5)}) == {"epoch": 2, "loss": 2.5}
    for epoch in (2, 4):
        with pytest.raises(ValueError, match="epoch 3 was due"):
            ledger.append({"epoch": epoch})
    no_numbers: list[Any] = [True, "1", None, np.zeros(2)]
    for value in no_numbers:
        with pytest.raises(ValueError, match="'loss' is a"):
            ledger.append({"loss": value})
    assert len(ledger.history) == 2


def test_the_ledger_is_valid_json_and_carries_nan(tmp_path: Path) -> None:
    ledger = Ledger(wall_s=1.5, device_s=3.0)
    ledger.append({"loss": math.nan})
    ledger.write(tmp_path)
    json.loads((tmp_path / LEDGER_NAME).read_text(), parse_constant=pytest.fail)
    assert repr(Ledger.read(tmp_path)) == repr(ledger)
