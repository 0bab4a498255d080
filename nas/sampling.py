"""Which paths a training step runs, as a pure function of (seed, step).

Every rank draws the same paths without a message, a resumed run continues with the paths that an
uninterrupted one would have drawn, and nothing depends on how often anything else was random.

`uniform` is SPOS (Guo et al., ECCV 2020): one path a step. `fair` is FairNAS's strict fairness
(Chu et al., 2019): each step runs N paths, whose choices per layer are one permutation of the
candidates, so that every candidate operation gets exactly one gradient contribution.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas.space import IDENTITY, Architecture, SearchSpace

Sampler = Callable[[SearchSpace, int, int], tuple[Architecture, ...]]


def step_generator(seed: int, step: int) -> np.random.Generator:
    """The generator of one training step: counter-based, so that any step can be asked for."""
    if seed < 0 or step < 0:
        raise ValueError(f"seed and step must not be negative, got seed {seed} and step {step}.")
    return np.random.Generator(np.random.Philox(key=np.array([seed, step], dtype=np.uint64)))


def uniform_paths(space: SearchSpace, seed: int, step: int) -> tuple[Architecture, ...]:
    """One architecture, uniform over the space."""
    return (space.random_architecture(step_generator(seed, step)),)


def fair_paths(space: SearchSpace, seed: int, step: int) -> tuple[Architecture, ...]:
    """N architectures that together use every candidate of every layer exactly once.

    Raises ValueError where layers have different numbers of candidates: strict fairness is then
    impossible.
    """
    counts = {len(space.layers[index].candidates) for index in space.searched_layers}
    if len(counts) > 1:
        raise ValueError(
            f"the sampler 'fair' needs the same number of candidates in every layer, but space "
            f"{space.name!r} has layers with {' and '.join(map(str, sorted(counts)))}: "
            f"use the sampler 'uniform'."
        )
    # Not `space.num_candidates`: a layer group of fixed identities alone can name more candidates.
    num_paths = max(counts, default=1)
    rng = step_generator(seed, step)
    columns = [
        np.full(num_paths, IDENTITY) if layer.fixed_identity else rng.permutation(num_paths)
        for layer in space.layers
    ]
    return tuple(tuple(int(column[path]) for column in columns) for path in range(num_paths))


SAMPLERS: dict[str, Sampler] = {"uniform": uniform_paths, "fair": fair_paths}
