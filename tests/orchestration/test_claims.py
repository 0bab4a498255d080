"""One maker at a time: among threads, processes and file systems, and after a death."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs as pafs

from orchestration.store.claims import Claim, Claims, Holder
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
STAGE = "abc123"


def on_disk(tmp_path: Path) -> Claims:
    return Claims(tmp_path)


def in_memory(tmp_path: Path) -> Claims:
    store = pafs.PyFileSystem(pafs.FSSpecHandler(MemoryFileSystem()))
    return Claims(f"bucket{tmp_path}", store)


@pytest.fixture(params=[on_disk, in_memory])
def claims(request: pytest.FixtureRequest, tmp_path: Path) -> Claims:
    make: Callable[[Path], Claims] = request.param
    return make(tmp_path)


def test_a_claim_excludes_others_until_it_is_given_up(claims: Claims) -> None:
    claim = claims.attempt(STAGE)
    assert claim is not None
    with claim:
        assert claims.attempt(STAGE) is None
        other = claims.attempt("another")
        assert other is not None
        with other:
            holder = claims.holder(STAGE)
            assert holder is not None
            assert holder.owner == claim.holder.owner
    assert claims.holder(STAGE) is None
    again = claims.attempt(STAGE)
    assert again is not None
    with again:
        pass


def test_of_many_that_claim_at_once_no_two_hold_it(claims: Claims) -> None:
    barrier, inside, most, entered = threading.Barrier(8), [0], [0], [0]
    lock = threading.Lock()

    def enter(_: int) -> None:
        barrier.wait()
        while (claim := claims.attempt(STAGE)) is None:
            time.sleep(0.001 * (1 + hash(threading.get_ident()) % 7))
        with claim:
            with lock:
                inside[0] += 1
                entered[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            with lock:
                inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(8)))
    assert (most[0], entered[0]) == (1, 8)


def _take_turns(folder: str, mark: str) -> None:
    claims, turns = Claims(folder), 0
    while turns < 5:
        claim = claims.attempt(STAGE)
        if claim is None:
            time.sleep(0.003)
            continue
        with claim:
            # Exclusive creation is the witness: it fails where two are inside at once.
            witness = Path(folder, "witness")
            with witness.open("x") as file:
                file.write(mark)
            time.sleep(0.002)
            witness.unlink()
        turns += 1


def test_of_many_processes_no_two_hold_it(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_take_turns, args=(str(tmp_path), str(mark))) for mark in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_the_claim_of_a_process_that_died_here_is_void_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]);"
        "from orchestration.store.claims import Claims;"
        "assert Claims(sys.argv[1]).attempt('abc123') is not None; os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(ROOT)], check=False)
    assert done.returncode == 9
    assert list((tmp_path / "claims" / STAGE).iterdir())
    claim = Claims(tmp_path).attempt(STAGE)
    assert claim is not None
    with claim:
        pass


def elsewhere(**changes: Any) -> Holder:
    return Holder(**{"owner": "far", "machine": "far away", "pid": 1, "started": 1, **changes})


def test_a_claim_from_elsewhere_is_void_when_it_shows_no_sign_of_life(tmp_path: Path) -> None:
    claims = Claims(tmp_path, stale_s=0.3)
    claims.write(STAGE, elsewhere())
    assert claims.attempt(STAGE) is None
    for beat in range(1, 5):  # it lives: it is not the clock that counts, but the beat
        time.sleep(0.1)
        claims.write(STAGE, elsewhere(beat=beat))
        assert claims.attempt(STAGE) is None
    time.sleep(0.4)
    claim = claims.attempt(STAGE)
    assert claim is not None
    with claim:
        assert not claims.is_there(STAGE, "far")


@pytest.mark.parametrize(("make", "longest_s"), [(on_disk, 0.6), (in_memory, 15.0)])
def test_who_waits_at_a_bucket_asks_ever_less_often(
    make: Callable[[Path], Claims],
    longest_s: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    claims = make(tmp_path)
    claims.write(STAGE, elsewhere())
    assert claims.wait(STAGE, lambda: len(pauses) > 60 or None)
    assert max(pauses[:3]) < 0.4 * 1.5**3
    assert longest_s / 4 < max(pauses[30:]) <= longest_s
    assert sum(pauses) > 30 * longest_s / 3


def test_a_holder_gives_signs_of_life_and_says_how_far_it_is(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat_s=0.02)
    claim = claims.attempt(STAGE)
    assert claim is not None
    with claim:
        claim.set_note({"epoch": 3})

        def is_noted() -> bool:
            holder = Claims(tmp_path).holder(STAGE)
            return holder is not None and holder.beat > 1 and holder.note == {"epoch": 3}

        wait_for(is_noted)
        assert not claim.lost.is_set()


def test_a_holder_that_was_taken_for_dead_learns_of_it(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat_s=0.02)
    claim = claims.attempt(STAGE)
    assert isinstance(claim, Claim)
    with claim:
        claims.remove(STAGE, claim.holder.owner)
        wait_for(claim.lost.is_set)
    assert claims.holder(STAGE) is None


def test_a_sign_of_life_that_comes_too_late_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storage that hangs: meanwhile the holder was taken for dead, and followed."""
    claims = Claims(tmp_path, beat_s=0.02, stale_s=0.2)
    write = claims.write

    def hang(fingerprint: str, holder: Holder) -> None:
        if holder.beat == 1 and holder.owner != "far":
            claims.remove(fingerprint, holder.owner)
            write(fingerprint, elsewhere())
            time.sleep(0.3)
        write(fingerprint, holder)

    monkeypatch.setattr(claims, "write", hang)
    claim = claims.attempt(STAGE)
    assert claim is not None
    with claim:
        wait_for(claim.lost.is_set)
        assert not claims.is_there(STAGE, claim.holder.owner)
    assert claims.is_there(STAGE, "far")
