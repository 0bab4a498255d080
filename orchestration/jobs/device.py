"""What a worker runs on: without it, device-hours are hours of nobody knows what."""

from __future__ import annotations

import platform
import socket
from pathlib import Path
from typing import Any


def describe_device(device: str) -> dict[str, Any]:
    """Plain values about this machine's CPU, or about one of its GPUs.

    Args:
        device: ``cpu``, or ``cuda`` with or without a number.
    """
    known: dict[str, Any] = {"node": socket.gethostname(), "model": processor()}
    if not device.startswith("cuda"):
        return known
    import torch
    from torch.utils import collect_env

    properties = torch.cuda.get_device_properties(device)
    return {
        **known,
        "model": properties.name,
        "memory_gib": round(properties.total_memory / 1024**3, 1),
        "cuda": torch.version.cuda,
        "driver": collect_env.get_nvidia_driver_version(collect_env.run),
        # Whether float32 convolutions and matrix products were rounded to TF32.
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
    }


def processor() -> str:
    """The name of this machine's CPU."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
