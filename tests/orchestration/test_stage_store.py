from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest
from pyarrow import fs as pafs

from orchestration.store.stage_store import StageRecord, StageStore, StorageError
from tests.orchestration.records import make_record


def _fsspec_memory() -> pafs.FileSystem:
    memory = fsspec.filesystem("memory", skip_instance_cache=True)
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return pafs.PyFileSystem(pafs.FSSpecHandler(memory))


@pytest.fixture(params=["local", "mock", "fsspec", "subtree"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StageStore:
    if request.param == "local":
        return StageStore(tmp_path / "store")
    if request.param == "mock":
        return StageStore("bucket/results", pafs._MockFileSystem())
    if request.param == "fsspec":
        return StageStore("bucket/results", _fsspec_memory())
    return StageStore("results", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "made"
    (folder / "figures").mkdir(parents=True)
    (folder / "weights.pt").write_bytes(bytes(range(256)) * 5000)
    (folder / "figures" / "γ.png").write_bytes(b"png")
    return folder


def test_a_record_comes_back_with_its_files(
    store: StageStore, folder: Path, tmp_path: Path
) -> None:
    record = make_record()
    assert store.get(record.fingerprint) is None
    assert list(store.list()) == []

    put = store.put(record, folder)
    got = store.get(record.fingerprint)

    assert got is not None
    assert repr(got) == repr(put)  # NaN is not equal to itself
    assert got.files == ("figures/γ.png", "weights.pt")
    assert repr(dataclasses.replace(got, files=(), attempt="")) == repr(record)
    fetched = store.fetch(record.fingerprint, "weights.pt", tmp_path / "new" / "w.pt")
    assert fetched.read_bytes() == (folder / "weights.pt").read_bytes()
    assert [path.name for path in fetched.parent.iterdir()] == ["w.pt"]
    assert store.read_bytes(got, "figures/γ.png") == b"png"


def test_the_first_record_stays(store: StageStore, folder: Path) -> None:
    first = store.put(make_record(wall_s=1.0), folder)
    second = store.put(make_record(wall_s=2.0))
    assert repr(second) == repr(store.get(first.fingerprint)) == repr(first)
    assert second.wall_s == 1.0


def test_a_stage_without_its_record_is_absent(store: StageStore, folder: Path) -> None:
    class PowerCutError(BaseException):
        pass

    def fail(home: str, content: bytes) -> bool:
        raise PowerCutError

    record = make_record()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_write_record", fail)  # injects the crash
        with pytest.raises(PowerCutError):
            store.put(record, folder)
    assert store.get(record.fingerprint) is None
    assert list(store.list()) == []
    assert store.put(record, folder).files
    assert [each.fingerprint for each in store.list()] == [record.fingerprint]


def test_listing_and_deleting(store: StageStore, folder: Path) -> None:
    records = [store.put(make_record(kind, seed), folder) for kind in "ab" for seed in range(2)]
    assert {each.fingerprint for each in store.list()} == {r.fingerprint for r in records}
    assert {each.fingerprint for each in store.list("b")} == {r.fingerprint for r in records[2:]}

    store.delete(records[0].fingerprint)
    store.delete(records[0].fingerprint)
    assert store.get(records[0].fingerprint) is None
    assert len(list(store.list())) == 3
    with pytest.raises(StorageError, match="no such stage"):
        store.read_bytes(records[0].fingerprint, "weights.pt")
    with pytest.raises(StorageError, match="its files are"):
        store.read_bytes(records[1].fingerprint, "../record.json")


def _write_many(path: str, folder: str, seeds: range, start: Any) -> None:
    start.wait()
    store = StageStore(path)
    for seed in seeds:
        store.put(make_record(seed=seed, wall_s=float(os.getpid())), Path(folder))


def test_two_writers_and_a_reader_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path, seeds = str(tmp_path / "store"), range(30)
    start = context.Barrier(3)
    writers = []
    for name in "AB":
        folder = tmp_path / name
        folder.mkdir()
        (folder / "who").write_text(name)
        arguments = (path, str(folder), seeds, start)
        writers.append(context.Process(target=_write_many, args=arguments))
    for writer in writers:
        writer.start()
    store = StageStore(path)
    seen: dict[str, tuple[float, bytes]] = {}
    start.wait()
    while any(writer.is_alive() for writer in writers):
        for record in store.list():
            who = store.read_bytes(record, "who")
            assert seen.setdefault(record.fingerprint, (record.wall_s, who)) == (record.wall_s, who)
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    records = list(store.list())
    assert len(records) == len(seeds)
    by_process = {record.wall_s: store.read_bytes(record, "who") for record in records}
    for record in records:
        assert store.read_bytes(record, "who") == by_process[record.wall_s]
    # A loser leaves nothing behind: one folder of files for each record.
    folders = [p for p in Path(path, "stages").glob("*/*") if p.is_dir()]
    assert sorted(p.name for p in folders) == sorted(record.attempt for record in records)


def test_a_reader_keeps_the_files_of_the_record_it_holds(tmp_path: Path, folder: Path) -> None:
    """On a store that cannot refuse the later of two simultaneous writers."""
    filesystem = pafs._MockFileSystem()
    early, late = (StageStore("b", filesystem) for _ in range(2))
    (folder / "weights.pt").write_bytes(b"early")
    both = threading.Barrier(2)
    results: dict[str, StageRecord] = {}

    def put(name: str, store: StageStore, files: Path) -> None:
        get = store.get

        def get_together(fingerprint: str) -> StageRecord | None:
            found = get(fingerprint)
            both.wait()
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "get", get_together)  # both see an empty store
            results[name] = store.put(make_record(), files)

    other = tmp_path / "other"
    other.mkdir()
    (other / "weights.pt").write_bytes(b"late")
    threads = [
        threading.Thread(target=put, args=("early", early, folder)),
        threading.Thread(target=put, args=("late", late, other)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = StageStore("b", filesystem)
    for name, record in results.items():
        assert reader.read_bytes(record, "weights.pt") == name.encode()
    assert reader.read_bytes(make_record().fingerprint, "weights.pt") in (b"early", b"late")


def test_a_damaged_record_says_how_to_go_on(tmp_path: Path) -> None:
    store = StageStore(tmp_path)
    record = store.put(make_record())
    place = tmp_path / "stages" / record.fingerprint / "record.json"
    for text in ("{", "{}", json.dumps({"format": 99, "record": {}})):
        place.write_text(text)
        with pytest.raises(StorageError, match="delete its folder"):
            store.get(record.fingerprint)
    store.delete(record.fingerprint)
    assert store.get(record.fingerprint) is None


def test_an_unusable_path_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    for path in (str(tmp_path / "file" / "below"), "/proc/nothing/can/be/made/here"):
        for action in (StageStore(path).check, lambda p=path: StageStore(p).put(make_record())):
            with pytest.raises(StorageError) as caught:
                action()
            assert path in str(caught.value)
            assert "storage.path" in str(caught.value)
            assert "\n" not in str(caught.value)
    with pytest.raises(StorageError, match="no usable address"):
        StageStore("gopher://hole/in/the/ground")
    with pytest.raises(StorageError, match="no fingerprint"):
        StageStore(tmp_path).get("../../etc")


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    StageStore(tmp_path / "new").check()
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_relative_path_starts_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = StageStore("results")
    monkeypatch.chdir("/")
    record = store.put(make_record())
    assert (tmp_path / "results" / "stages" / record.fingerprint / "record.json").exists()
