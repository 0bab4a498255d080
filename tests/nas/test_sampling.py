"""Paths are a pure function of (seed, step), uniform or strictly fair."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats
from torch import Tensor

from nas.network import Supernet
from nas.sampling import SAMPLERS, fair_paths, step_generator, uniform_paths
from nas.schedule import WarmupCosine
from nas.space import load_space, space_from_dict
from nas.training import build_optimizer, train_epoch
from tests.nas.examples import RAGGED_YAML, TINY, digit_batches

RAGGED = space_from_dict(yaml.safe_load(RAGGED_YAML))


@pytest.mark.parametrize("name", ["spos", "fairnas", "micro"])
def test_fair_paths_are_one_permutation_per_layer(name: str) -> None:
    space = load_space(name)
    orders = set()
    for step in range(20):
        paths = fair_paths(space, 3, step)
        assert len(paths) == 6
        for path in paths:
            space.validate(path)
        for layer, column in zip(space.layers, zip(*paths, strict=True), strict=True):
            expected = [-1] * 6 if layer.fixed_identity else [0, 1, 2, 3, 4, 5]
            assert sorted(column) == expected
            orders.add(column)
    assert len(orders) > 100  # layers and steps have permutations of their own


def test_fair_is_refused_where_layers_have_different_numbers_of_candidates() -> None:
    with pytest.raises(ValueError, match=r"'ragged' has layers with 1 and 2 and 6.*'uniform'"):
        fair_paths(RAGGED, 0, 0)


def test_fair_counts_only_the_candidates_of_layers_that_have_a_choice() -> None:
    data = TINY.to_dict()
    data["stages"].insert(
        1, {"channels": 8, "layers": 1, "stride": 1, "candidates": [[k, 1] for k in (1, 3, 5, 7)]}
    )
    data["fixed_identity"] = [1, 3]
    space = space_from_dict(data)
    assert space.num_candidates == 4
    paths = fair_paths(space, 0, 0)
    assert len(paths) == 3
    for path in paths:
        space.validate(path)


def test_uniform_frequencies_pass_chi_square() -> None:
    for space in (TINY, RAGGED):
        draws_TL = np.array([uniform_paths(space, 11, step)[0] for step in range(3000)])
        p_values = []
        for index in space.searched_layers:
            num_choices = len(space.layers[index].candidates)
            counts = np.bincount(draws_TL[:, index], minlength=num_choices)
            assert len(counts) == num_choices
            if num_choices > 1:
                p_values.append(stats.chisquare(counts).pvalue)
        for left, right in itertools.combinations(space.searched_layers, 2):
            table = stats.contingency.crosstab(draws_TL[:, left], draws_TL[:, right]).count
            if min(table.shape) > 1:  # layers are drawn independently of each other
                p_values.append(stats.chi2_contingency(table).pvalue)
        assert min(p_values) > 0.01 / len(p_values)


@pytest.mark.parametrize("name", SAMPLERS)
def test_seed_and_step_decide_the_paths_in_any_process(name: str) -> None:
    program = (
        "from nas.sampling import SAMPLERS\n"
        "from nas.space import load_space\n"
        f"print([SAMPLERS[{name!r}](load_space('spos'), 7, step) for step in (0, 1, 10**9)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    space = load_space("spos")
    ours = [SAMPLERS[name](space, 7, step) for step in (0, 1, 10**9)]
    assert done.stdout.strip() == str(ours)


@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_and_steps_differ_and_are_independent_of_order(name: str) -> None:
    space = load_space("spos")
    draws = {
        (seed, step): SAMPLERS[name](space, seed, step) for seed in range(5) for step in range(20)
    }
    assert len(set(draws.values())) == len(draws)
    for (seed, step), paths in reversed(draws.items()):
        assert SAMPLERS[name](space, seed, step) == paths


def test_negative_seed_or_step_is_refused() -> None:
    with pytest.raises(ValueError, match="seed -1 and step 0"):
        step_generator(-1, 0)
    with pytest.raises(ValueError, match="seed 0 and step -1"):
        step_generator(0, -1)


def test_fair_gives_every_candidate_exactly_one_gradient_a_step() -> None:
    supernet = Supernet(TINY, seed=0)
    contributions: Counter[str] = Counter()

    def counter(name: str) -> None:
        parameter = supernet.get_parameter(name)
        parameter.register_post_accumulate_grad_hook(lambda _: contributions.update([name]))

    names = [name for name, _ in supernet.named_parameters()]
    for name in names:
        counter(name)
    optimizer = build_optimizer(supernet)
    for step in range(3):
        contributions.clear()
        train_epoch(
            supernet,
            digit_batches(1),
            optimizer,
            WarmupCosine(start=0.1, peak=0.1, warmup_steps=0, num_steps=3),
            first_step=step,
            passes=lambda step: [(arch,) for arch in fair_paths(TINY, 5, step)],
        )
        assert set(contributions) == set(names)
        for name, count in contributions.items():
            assert count == (1 if name.startswith("layers.") else 3), name


def test_the_gradient_of_a_fair_step_is_the_sum_of_its_paths() -> None:
    paths = fair_paths(TINY, 5, 0)

    def gradients(archs: tuple[tuple[int, ...], ...]) -> dict[str, Tensor]:
        supernet = Supernet(TINY, seed=0)
        train_epoch(
            supernet,
            digit_batches(1),
            build_optimizer(supernet),
            WarmupCosine(start=0.1, peak=0.1, warmup_steps=0, num_steps=1),
            first_step=0,
            passes=lambda step: [(arch,) for arch in archs],
        )
        return {n: p.grad for n, p in supernet.named_parameters() if p.grad is not None}

    together = gradients(paths)
    alone = [gradients((path,)) for path in paths]
    assert len(together) > len(alone[0])
    for name, gradient in together.items():
        parts = [single[name] for single in alone if name in single]
        assert len(parts) == (1 if name.startswith("layers.") else 3)
        torch.testing.assert_close(gradient, torch.stack(parts).sum(dim=0), rtol=1e-4, atol=1e-6)
