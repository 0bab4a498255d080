"""What a training takes of its machine while it runs, under MLflow's names for system metrics.

It is shown live and kept nowhere else: a stage's history stays what its fingerprint determines.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import psutil

from orchestration.tracking.tracker import SYSTEM_METRICS

_INTERVAL_S = 10.0
_MB = 1e6


class Usage:
    """Samples a worker's node and GPU from a thread of its own.

    Args:
        device: of the worker, such as ``cpu`` or ``cuda:0``.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._samples: defaultdict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        psutil.cpu_percent()  # counts from here
        threading.Thread(target=self._watch, name="usage", daemon=True).start()

    def metrics(self) -> dict[str, float]:
        """Means since the last call: percent, and megabytes (10^6 bytes)."""
        self._sample()
        with self._lock:
            means = {name: fmean(values) for name, values in self._samples.items()}
            self._samples.clear()
        means["cpu_utilization_percentage"] = psutil.cpu_percent()
        return {SYSTEM_METRICS + name: value for name, value in means.items()}

    def _watch(self) -> None:
        pause = threading.Event()
        while not pause.wait(_INTERVAL_S):
            self._sample()

    def _sample(self) -> None:
        memory = psutil.virtual_memory()
        sample = {
            "system_memory_usage_megabytes": memory.used / _MB,
            "system_memory_usage_percentage": memory.percent,
        }
        if self._device.startswith("cuda"):
            sample |= _of_gpu(self._device)
        with self._lock:
            for name, value in sample.items():
                self._samples[name].append(value)


def _of_gpu(device: str) -> dict[str, float]:
    """Empty where the driver does not say, as of a part of a GPU."""
    import torch

    try:
        used, total = torch.cuda.device_memory_used(device), torch.cuda.mem_get_info(device)[1]
        return {
            "gpu_utilization_percentage": torch.cuda.utilization(device),
            "gpu_memory_usage_megabytes": used / _MB,
            "gpu_memory_usage_percentage": 100 * used / total,
        }
    except Exception:  # noqa: BLE001  # NVML's errors; a curve less must not cost a training
        return {}


def combine(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rank 0's row, with the mean over all ranks where it is about what their machines do."""
    means = {
        name: fmean(row[name] for row in rows if name in row)
        for name in rows[0]
        if name.startswith(SYSTEM_METRICS)
    }
    return rows[0] | means
