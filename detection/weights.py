"""Reading a network's weights from a file that somebody else may have written.

A checkpoint is read as tensors and nothing else: a pickle that carries code is refused before any
of it runs. And it has to fit: a key that is missing, unknown or of another shape is an error,
because a backbone with half of its weights trains without complaint, and worse.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_NUM_NAMED = 5  # keys in an error message


class WeightsError(ValueError):
    """A file of weights that cannot be read, or that does not fit the network."""


def load_weights(network: nn.Module, path: str | Path, *, ignored: Collection[str] = ()) -> None:
    """Read a state dict from a file into `network`.

    Args:
        network: what the weights are for.
        path: a file that `torch.save` wrote of a `state_dict()`.
        ignored: keys that the file may have and the network has not.

    Raises:
        WeightsError: the file cannot be read or is not a state dict of tensors; or keys are
            missing, unexpected or differ in shape: the message names the first of them.
    """
    given, expected = _read_state_dict(path), network.state_dict()
    problems = [
        *_list_keys("missing", expected.keys() - given.keys()),
        *_list_keys("unexpected", given.keys() - expected.keys() - set(ignored)),
        *_list_keys(
            "of another shape",
            (
                f"{key} {list(given[key].shape)} instead of {list(expected[key].shape)}"
                for key in expected.keys() & given.keys()
                if given[key].shape != expected[key].shape
            ),
        ),
    ]
    if problems:
        raise WeightsError(
            f"the weights in {path} do not fit the network: {'; '.join(problems)}. Give the "
            f"weights of the same architecture in the same search space."
        )
    network.load_state_dict({key: given[key] for key in expected})


def _read_state_dict(path: str | Path) -> dict[str, Tensor]:
    content = read_checkpoint(path)
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise WeightsError(
            f"{path} is not a state dict (expected tensors by name): give a file that torch.save "
            f"wrote of a state_dict()."
        )
    return dict(content)


def read_checkpoint(path: str | Path) -> Any:
    """The content of a `torch.save` file: tensors and plain values; WeightsError for all else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors, or is no checkpoint at all; nothing in it was run. "
            f"Give a file that torch.save wrote of a state_dict()."
        ) from error
    except (OSError, EOFError, RuntimeError) as error:
        raise WeightsError(f"the weights in {path} cannot be read: {error}.") from error


def _list_keys(what: str, keys: Iterable[str]) -> list[str]:
    names = sorted(keys)
    if not names:
        return []
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return [f"{what} {', '.join(names[:_NUM_NAMED])}{more}"]
