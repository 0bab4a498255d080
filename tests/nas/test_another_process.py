"""What a seed decides is the same in every process: paths, initial weights and batches."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import torch

from nas.data import load_data
from nas.network import Supernet
from nas.sampling import SAMPLERS
from nas.space import load_space
from tests.nas.data_files import write_image_tree
from tests.nas.examples import TINY


def results(image_root: str) -> dict[str, str]:
    """Digests of everything that a seed decides."""
    spos = load_space("spos")
    content = {
        name: str([sample(spos, 7, step) for step in (0, 1, 10**9)]).encode()
        for name, sample in SAMPLERS.items()
    }
    weights = Supernet(TINY, seed=5).state_dict()
    content["weights"] = b"".join(value.numpy().tobytes() for value in weights.values())
    for name, root in (("digits", None), ("imagefolder", image_root)):
        splits = load_data(name, root=root, resolution=24)
        # The second training batch of an epoch, augmented.
        batch = next(splits.train.batches(8, training=True, seed=7, epoch=4, start=1))
        content[name] = b"".join(part.numpy().tobytes() for part in batch)
    return {name: hashlib.sha256(value).hexdigest() for name, value in content.items()}


PROGRAM = """
import json, sys, torch
from tests.nas.test_another_process import results
torch.manual_seed(9)
print(json.dumps(results(sys.argv[1])))
"""


def test_another_process_gets_the_same_from_a_seed(tmp_path: Path) -> None:
    write_image_tree(tmp_path, {"ant": 14, "bee": 14}, {"ant": 4, "bee": 3})
    torch.manual_seed(3)
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(there.stdout) == results(str(tmp_path))
