"""How the index is read from the tables, cached, found again and shared."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bridgeta_core.data.nuscenes import index_cache as tables
from bridgeta_core.data.nuscenes import json_table as jsontable
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.utils.errors import BridgeTAError

VERSION = "v1.0-mini"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cached_folders(cache: Path) -> list[Path]:
    """The folders of the cache, half-written ones included; locks are files."""
    return [path for path in (cache / "index").glob("*") if path.is_dir()]


def everything(index: NuScenesDataset) -> list:
    """All that an index knows, in plain values."""
    records = [record for scene in index.scenes for record in index.records(scene.name)]
    return [
        index.scenes,
        [(s.token, s.scene, sorted(r.token for r in s.records.values())) for s in index],
        [(r.token, r.path, r.stamp_us, r.is_keyframe, r.width, r.height, r.channel) for r in records],
        [(r.global_T_ego.tolist(), r.ego_T_sensor.tolist(), np.array(r.intrinsics).tolist()) for r in records],
    ]


def start(function: str, *arguments) -> subprocess.Popen:
    """Start a function of this file in a fresh process."""
    code = (
        "import pickle, runpy, sys; file, name, arguments = pickle.load(sys.stdin.buffer)\n"
        "sys.stdout.buffer.write(pickle.dumps(runpy.run_path(file)[name](*arguments)))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(pickle.dumps((__file__, function, arguments)))
    process.stdin.close()
    return process


def finish(process: subprocess.Popen):
    """Wait for a process, and return what its function returned."""
    with process:
        return pickle.loads(process.stdout.read())


def no_reading(monkeypatch):
    monkeypatch.setattr(tables, "join_tables", lambda *_: pytest.fail("the tables are read again"))


def test_tables_are_read_only_once(small_root, cache, monkeypatch):
    assert not tables.is_cached(small_root, VERSION)
    first = NuScenesDataset(small_root, VERSION)
    no_reading(monkeypatch)
    assert tables.is_cached(small_root, VERSION)
    assert everything(NuScenesDataset(small_root, VERSION)) == everything(first)
    assert first.folder in cached_folders(cache)
    assert not list(small_root.rglob("*.npy"))


def test_what_the_index_does_not_need_is_not_read(broken_root, cache):
    for name in ("sample_annotation", "instance", "attribute", "visibility", "category"):
        (broken_root / VERSION / f"{name}.json").write_text("no JSON")
    assert len(NuScenesDataset(broken_root, VERSION)) == 4


def test_small_chunks_give_the_same_index(small_root, cache, monkeypatch):
    whole = everything(NuScenesDataset(small_root, VERSION))
    shutil.rmtree(cache)
    monkeypatch.setattr(jsontable, "_CHUNK", 7)
    assert everything(NuScenesDataset(small_root, VERSION)) == whole


def test_the_order_of_tables_means_nothing(broken_root, cache):
    before = everything(NuScenesDataset(broken_root, VERSION))
    for name in ("ego_pose", "calibrated_sensor", "sample", "sample_data", "log", "sensor"):
        path = broken_root / VERSION / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    assert everything(NuScenesDataset(broken_root, VERSION)) == before


def test_a_changed_table_is_read_again(broken_root, cache):
    before = NuScenesDataset(broken_root, VERSION)
    path = broken_root / VERSION / "scene.json"
    path.write_text(path.read_text().replace("Night", "Dawn"))
    assert before.scenes[1].description == "Night, rain"
    assert NuScenesDataset(broken_root, VERSION).scenes[1].description == "Dawn, rain"


def test_a_table_of_another_time_is_read_again(broken_root, cache):
    first = NuScenesDataset(broken_root, VERSION).folder
    os.utime(broken_root / VERSION / "log.json", ns=(0, 0))
    assert NuScenesDataset(broken_root, VERSION).folder != first


def _empty(folder: Path) -> None:
    (folder / "record_stamp.npy").write_bytes(b"")


def _half(folder: Path) -> None:
    path = folder / "record_ego.npy"
    path.write_bytes(path.read_bytes()[:200])


def _missing(folder: Path) -> None:
    (folder / "sample_token.npy").unlink()


def _shorter(folder: Path) -> None:
    np.save(folder / "record_path.npy", np.load(folder / "record_path.npy")[:-1])


def _foreign(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    np.save(folder / "x.npy", np.zeros(3))


def _no_about(folder: Path) -> None:
    (folder / "about.json").write_text('{"layout": 2, "ro')


@pytest.mark.parametrize("damage", [_empty, _half, _missing, _shorter, _foreign, _no_about])
def test_a_broken_index_is_built_again_with_a_warning(small_root, cache, caplog, damage):
    index = NuScenesDataset(small_root, VERSION)
    whole = everything(index)
    damage(index.folder)
    assert everything(NuScenesDataset(small_root, VERSION)) == whole
    assert "the index is built again" in caplog.text
    caplog.clear()
    NuScenesDataset(small_root, VERSION)
    assert not caplog.text
    assert cached_folders(cache) == [index.folder]


def test_the_index_of_another_root_under_our_name_is_not_used(broken_root, cache, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(broken_root, other)
    path = other / VERSION / "scene.json"
    path.write_text(path.read_text().replace("Night", "Later"))
    ours, theirs = (NuScenesDataset(root, VERSION).folder for root in (broken_root, other))
    assert ours != theirs
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    assert NuScenesDataset(broken_root, VERSION).scenes[1].description == "Night, rain"


def test_works_without_a_writable_cache(small_root, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("a file is no folder")
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "file"))
    index = NuScenesDataset(small_root, VERSION)
    assert (len(index), index.folder) == (4, None)
    assert "cannot be cached" in caplog.text
    assert everything(pickle.loads(pickle.dumps(index))) == everything(index)


def test_an_interruption_leaves_nothing_behind(small_root, cache, monkeypatch):
    monkeypatch.setattr(tables, "save_array", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        NuScenesDataset(small_root, VERSION)
    monkeypatch.undo()
    assert cached_folders(cache) == []


def test_a_loader_process_is_sent_a_name_and_maps_the_files(small_root, cache):
    index = NuScenesDataset(small_root, VERSION)
    index.lidar_sweeps(1, 9)
    sent = pickle.dumps(index)
    assert len(sent) < 2000
    assert str(small_root / VERSION / "x").encode() not in sent  # no path of a file, only the root
    assert finish(start("everything", index)) == everything(index)


def test_large_arrays_are_mapped_not_read(small_root, cache, monkeypatch):
    monkeypatch.setattr(tables, "_MAPPED", 0)
    columns = tables.load_columns(small_root, VERSION)
    assert all(isinstance(column.base, np.memmap) and not column.flags.writeable for column in columns.values())


def test_a_received_index_that_is_gone_is_an_error(small_root, cache):
    index = NuScenesDataset(small_root, VERSION)
    sent = pickle.dumps(index)
    shutil.rmtree(index.folder)
    with pytest.raises(BridgeTAError, match=f"{index.folder}: is broken"):
        pickle.loads(sent)


def _open(root: Path) -> int:
    return len(NuScenesDataset(root, VERSION))


def _count_and_open(root: Path, counter: Path) -> int:
    build = tables.join_tables

    def counted(*arguments):
        counter.open("a").write("x")
        return build(*arguments)

    tables.join_tables = counted
    return _open(root)


def test_processes_that_start_together_build_once(small_root, cache, tmp_path):
    counter = tmp_path / "count"
    processes = [start("_count_and_open", small_root, counter) for _ in range(3)]
    assert [finish(process) for process in processes] == [4] * 3
    assert counter.read_text() == "x"
    assert len(cached_folders(cache)) == 1


def _no_root(root):
    os.rename(root, root.with_name("elsewhere"))


def _no_version(root):
    os.rename(root / VERSION, root / "v1.0-test")


def _no_table(root):
    (root / VERSION / "ego_pose.json").unlink()


def change(table: str, old: str, new: str):
    """A damage that replaces text in a table."""

    def damage(root):
        path = root / VERSION / f"{table}.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return damage


def set_first(table: str, **values):
    """A damage that changes fields of the first record of a table."""

    def damage(root):
        path = root / VERSION / f"{table}.json"
        rows = json.loads(path.read_text())
        rows[0].update(values)
        path.write_text(json.dumps(rows))

    return damage


def cut(table: str, length: int):
    """A damage that leaves the first bytes of a table."""

    def damage(root):
        path = root / VERSION / f"{table}.json"
        path.write_bytes(path.read_bytes()[:length])

    return damage


UNIT = r"is not a unit quaternion \(w, x, y, z\): "


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_root, "root: is not a folder.*samples/ and maps/"),
        (_no_version, "has no tables of version v1.0-mini. Use version v1.0-test"),
        (_no_table, "v1.0-mini: lacks ego_pose.json. Extract the metadata"),
        (cut("sample_data", 1000), "sample_data.json: .*truncated: it ends in record 2, about byte .*Extract the meta"),
        (cut("sample", 0), "sample.json: is empty. Extract the metadata"),
        (
            change("calibrated_sensor", "c-CAM_BACK", "c-OTHER"),
            "sample_data.json: the tables do not belong together: nothing in calibrated_sensor.json has the token "
            r"'c-CAM_BACK' \(calibrated_sensor_token of record \d+\)",
        ),
        (change("ego_pose", "e-scene-0103-1", "a"), "sample_data.json.*in ego_pose.json has the token 'e-scene-0103-1"),
        (change("log", "log1", "log2"), "scene.json: .*nothing in log.json has the token 'log1'"),
        (change("scene", "scene1", "zzz"), "sample.json: .*nothing in scene.json has the token 'scene1'"),
        (change("sample", "scene-0061-0", "zzz"), "sample_data.json: .*in sample.json has the token 'scene-0061-0'"),
        (change("sensor", "s-CAM", "a-CAM"), "calibrated_sensor.json: .*nothing in sensor.json has the token 's-CAM_"),
        (change("ego_pose", '"rotation"', '"orientation"'), "ego_pose.json: .*v1.0: record 0 has no rotation. Extract"),
        *(
            (
                set_first(table, rotation=rotation),
                rf"{table}.json: .*rotation of record 0 \(token [ec]-.*\) {UNIT}.*\. Extract",
            )
            for table in ("calibrated_sensor", "ego_pose")
            for rotation in (
                [0, 0, 0, 0],
                [2, 0, 0, 0],
                [0, 0, 90, 0],
                [0.9, 0, 0, 0],
                [1, 0, 0],
                [1, 0, 0, 0, 0],
                [float("nan"), 0, 0, 1],
                None,
                "1000",
                [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            )
        ),
        *(
            (set_first(table, translation=value), rf"{table}.json: .*translation of record 0 \(token [ec]-.* is not a ")
            for table in ("calibrated_sensor", "ego_pose")
            for value in ([1, 2], [1, 2, float("inf")], None, [1e9, 0, 0])
        ),
        (set_first("calibrated_sensor", translation=[1500, 0, 1800]), "metres on a vehicle .at most 100.: .1500, 0"),
        *(
            (
                set_first("calibrated_sensor", camera_intrinsic=k),
                r"camera_intrinsic of record 0 \(token c-.*camera matrix",
            )
            for k in (
                [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
                [[-50, 0, 32], [0, 50, 18], [0, 0, 1]],
                [[50, 0, 0], [0, 50, 0], [32, 18, 1]],
                [[50, 0, 32], [0, 50, 18]],
                [50, 50, 32, 18],
                [[50, 0, None], [0, 50, 18], [0, 0, 1]],
            )
        ),
        (
            set_first("calibrated_sensor", camera_intrinsic=[]),
            "calibrated_sensor.json: camera_intrinsic of the record c-CAM_FRONT is empty, but it has images",
        ),
        (
            change("sample_data", '"width": 64', '"width": 0'),
            "sample_data.json: width and height of the record .* 0 and 36",
        ),
    ],
)
def test_what_is_missing_or_broken_is_said_with_what_to_do(broken_root, cache, damage, message):
    damage(broken_root)
    with pytest.raises(BridgeTAError, match=message):
        NuScenesDataset(broken_root, VERSION)
    assert cached_folders(cache) == []
