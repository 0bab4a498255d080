"""The devices that training would run on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from experiments.doctor.check import Check, gigabytes
from experiments.doctor.libraries import INSTALL

_MIN_RAM_BYTES = 4 * 10**9
_TORCH_TIMEOUT_S = 120.0

# Runs in its own process; prints one line of JSON.
_GPU_PROBE = """
import json, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch
    devices = [
        {"name": p.name, "memory_bytes": p.total_memory}
        for p in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ] if torch.cuda.is_available() else []
print(json.dumps({
    "built_for": torch.version.cuda,
    "devices": devices,
    "warnings": [str(w.message).splitlines()[0] for w in caught if "CUDA" in str(w.message)],
}))
"""


def check_cpu() -> Check:
    """Cores that this process may use, and the machine's memory."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ram_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = f"{num_cores} cores, {gigabytes(ram_bytes)} of memory"
    if ram_bytes < _MIN_RAM_BYTES:
        mend = f"use a machine with {gigabytes(_MIN_RAM_BYTES)} or more: Ray alone takes about 1 GB"
        return Check("cpu", "warn", detail, mend)
    return Check("cpu", "ok", detail)


def check_gpu() -> Check:
    """CUDA devices as torch sees them; a machine without one is fine."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _GPU_PROBE],
            capture_output=True,
            text=True,
            timeout=_TORCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        detail = f"torch did not answer within {_TORCH_TIMEOUT_S:.0f} s"
        return Check("gpu", "warn", detail, "see whether nvidia-smi answers; restart the driver")
    if probe.returncode != 0:
        last_line = (probe.stderr.strip().splitlines() or ["no message"])[-1]
        detail = f"torch does not start (exit {probe.returncode}): {last_line}"
        return Check("gpu", "missing", detail, f"{INSTALL} --force-reinstall")
    return gpu_verdict(json.loads(probe.stdout.splitlines()[-1]), shutil.which("nvidia-smi"))


def gpu_verdict(cuda: Mapping[str, object], nvidia_smi: str | None) -> Check:
    """Judge what the torch process found.

    Args:
        found: ``devices`` (each with ``name`` and ``memory_bytes``), ``built_for`` (CUDA version
            or ``None``) and ``warnings`` of torch's.
        nvidia_smi: path of the driver's tool, if there is one; with it and without a device,
            somebody expects a GPU to work.
    """
    devices = cuda["devices"]
    assert isinstance(devices, list)
    if devices:
        names = [f"{d['name']}, {gigabytes(d['memory_bytes'])}" for d in devices]
        return Check("gpu", "ok", f"{len(names)}: {'; '.join(names)}")
    warnings = cuda["warnings"]
    assert isinstance(warnings, list)
    if cuda["built_for"] is None and nvidia_smi:
        detail = "this torch was built without CUDA, although an NVIDIA driver is installed"
        return Check("gpu", "warn", detail, "install a CUDA build of torch (pytorch.org)")
    if nvidia_smi:
        detail = warnings[0] if warnings else f"torch (CUDA {cuda['built_for']}) sees no device"
        mend = "run nvidia-smi: update a driver too old for this CUDA; check CUDA_VISIBLE_DEVICES"
        return Check("gpu", "warn", detail, mend)
    return Check("gpu", "ok", "none; training runs on the CPU")
