"""What this machine offers, what is missing, and how to mend it.

``diagnose()`` looks and returns values; printing them is the command line's business. It imports
neither torch nor ray nor mlflow: versions come from installed metadata, and devices from a short
torch process, so that a broken driver becomes a line of the diagnosis instead of a crash.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from experiments.config.places import StorageConfig
from experiments.doctor.check import Check, Status
from experiments.doctor.data import check_digits, check_fashion_mnist
from experiments.doctor.devices import check_cpu, check_gpu
from experiments.doctor.libraries import (
    check_detection,
    check_libraries,
    check_mmcv_operators,
    check_python,
    declared_requirements,
)
from experiments.doctor.storage import check_commit, check_storage, check_tracking

__all__ = ["Check", "Status", "diagnose"]


def diagnose(
    storage_path: str | Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> list[Check]:
    """Look at everything bnnas needs; takes a few seconds, most of them torch's import.

    Args:
        storage_path: where results will go, by default where an experiment puts them that does not
            say; it need not exist, and is not made.
        environ: where ``MLFLOW_TRACKING_URI`` is read from.
    """
    declared = declared_requirements(extra=None)
    return [
        check_python(),
        *check_libraries(declared),
        check_cpu(),
        check_gpu(),
        check_detection(declared_requirements(extra="detection")),
        check_mmcv_operators(),
        check_digits(),
        check_fashion_mnist(),
        check_storage(storage_path or StorageConfig().path),
        check_tracking(environ.get("MLFLOW_TRACKING_URI", "")),
        check_commit(Path(__file__).resolve().parent),
    ]
