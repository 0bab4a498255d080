"""One thread, and MMDetection's names where it looks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from mmengine.registry import DefaultScope

import detection  # noqa: F401  registers the modules


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(autouse=True)
def _mmdet_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield
