"""Reader of the idx files that MNIST and its relatives come in, plain or gzipped.

torchvision reads the unpacked files only, and Debian ships them gzipped in a folder that users
cannot write to; one reader for both keeps the copies off the disk.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

_UNSIGNED_BYTE = 8  # the element type code of idx files that hold uint8


def read_idx(path: Path, num_dims: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in an idx file, with `num_dims` dimensions.

    Raises:
        ValueError: the file is not such an array, or not all of one; the message names it.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a complete gzip file ({error}); get it again.") from error
    header_bytes = 4 + 4 * num_dims
    if len(content) < header_bytes or content[:4] != bytes([0, 0, _UNSIGNED_BYTE, num_dims]):
        raise ValueError(
            f"{path} does not begin like an idx file of unsigned bytes with {num_dims} "
            "dimension(s); get it again."
        )
    shape = struct.unpack_from(f">{num_dims}I", content, 4)
    expected_bytes = header_bytes + math.prod(shape)
    if len(content) != expected_bytes:
        raise ValueError(
            f"{path} holds {len(content)} bytes where its header announces {expected_bytes}; "
            "get it again."
        )
    # Copied: an array over a `bytes` object is read-only, which torch.from_numpy warns of.
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape).copy()
