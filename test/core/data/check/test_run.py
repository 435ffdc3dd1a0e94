"""`bridgeta data check`: every fault of a root is found and named, and a healthy root has none."""

from __future__ import annotations

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bridgeta_core.cli.commands import app
from bridgeta_core.data.check import content as deepcheck
from bridgeta_core.data.check.report import Severity
from bridgeta_core.data.check.run import check
from bridgeta_core.data.nuscenes.dataset import NuScenesDataset
from bridgeta_core.utils.errors import BridgeTAError

VERSION = "v1.0-mini"
TABLES = 13


def problems(report):
    return {item.name: item for item in report.problems}


def the(report, name):
    (item,) = [item for item in report.items if item.name == name]
    return item


def rewrite(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def files(root, pattern):
    return sorted(root.glob(pattern))


def test_the_files_of_a_channel_are_those_of_its_records(small_root):
    dataset = NuScenesDataset(small_root, VERSION)
    seen = 0
    for channel in dataset.files():
        for scene in range(len(dataset.scenes)):
            rows = np.flatnonzero(channel.scene == scene)
            records = dataset.records(dataset.scenes[scene].name, [channel.channel])
            assert [channel.root / channel.paths[i] for i in rows] == [record.path for record in records]
            assert channel.is_keyframe[rows].tolist() == [record.is_keyframe for record in records]
            assert channel.size[rows].tolist() == [[record.width, record.height] for record in records]
            seen += len(rows)
    assert seen == 24


def test_a_whole_synthetic_root_has_no_problem(synthetic_root):
    report = check(synthetic_root)
    assert {item.severity for item in report.items} == {Severity.OK}
    assert report.exit_code == 0
    assert report.bad_files == []
    assert report.verdict.startswith(
        f"Training can start: bridgeta train teacher tiny data.train_root={synthetic_root}"
    )
    assert the(report, "tables").what.startswith(f"all {TABLES} are there")
    assert the(report, "CAM_FRONT").what.startswith("5 of 5 keyframes, ")
    assert the(report, "splits").what == "synthetic: all of its scenes are of the split train"


def test_keyframes_without_lidar_are_healthy_for_a_student(broken_root):
    path = broken_root / VERSION / "sample_data.json"
    rows = [r for r in json.loads(path.read_text()) if r["is_key_frame"] and "LIDAR" not in r["token"]]
    path.write_text(json.dumps(rows))
    report = check(broken_root)
    assert report.exit_code == 0
    assert the(report, "CAM_BACK").what == "4 of 4 keyframes"
    assert "bridgeta train student tiny" in report.verdict


def test_a_part_of_the_real_dataset_is_no_problem(small_root):
    report = check(small_root)
    assert report.exit_code == 0
    notes = {item.name: item.what for item in report.items if item.severity is Severity.NOTE}
    assert notes == {
        "map of boston-seaport": "has no stop_line: unknown there, so neither trained nor scored",
        "split mini_train": "1 of 8 scenes are in the tables",
        "split mini_val": "1 of 2 scenes are in the tables",
    }
    assert the(report, "CAM_FRONT").what == "4 of 4 keyframes, 4 of 4 sweeps"
    assert report.verdict.endswith("data.version=v1.0-mini data.cameras=[CAM_BACK,CAM_FRONT]")


def test_the_real_keyframe_has_no_problem(real_root):
    report = check(real_root, deep=True, jobs=1)
    assert report.exit_code == 0
    assert the(report, "content").what == "7 files are whole"
    assert "ped_crossing, walkway, stop_line, carpark_area" in the(report, "map of singapore-onenorth").what


def test_a_split_with_all_its_scenes_is_complete(broken_root):
    from nuscenes.utils.splits import create_splits_scenes

    def both_splits(scenes):
        names = [name for split in ("mini_train", "mini_val") for name in create_splits_scenes()[split]]
        old = {scene["name"]: scene for scene in scenes}
        scenes += [{**scenes[0], "name": name, "token": name} for name in names if name not in old]

    def their_samples(rows):
        for scene in json.loads((broken_root / VERSION / "scene.json").read_text())[2:]:
            rows.append({**rows[0], "token": f"s-{scene['token']}", "scene_token": scene["token"]})

    def their_files(rows):
        keyframes = [r for r in rows if r["is_key_frame"] and r["sample_token"] == rows[0]["sample_token"]]
        for sample in json.loads((broken_root / VERSION / "sample.json").read_text())[4:]:
            for r in keyframes:
                rows.append({**r, "token": f"{r['token']}-{sample['token']}", "sample_token": sample["token"]})

    rewrite(broken_root / VERSION / "scene.json", both_splits)
    rewrite(broken_root / VERSION / "sample.json", their_samples)
    rewrite(broken_root / VERSION / "sample_data.json", their_files)
    report = check(broken_root)
    assert the(report, "split mini_train").what == "complete: 8 scenes"
    assert the(report, "split mini_val").severity is Severity.OK
    assert "data.train_scenes=mini_train data.val_scenes=mini_val" in report.verdict


@pytest.mark.parametrize("table", ["sample_data", "log", "sample_annotation"])
def test_a_missing_table_is_named(broken_root, table):
    (broken_root / VERSION / f"{table}.json").unlink()
    report = check(broken_root)
    assert problems(report)[f"table {table}"].what == "is missing"
    assert report.verdict.startswith(f"Training cannot start yet. First: table {table}: is missing")
    assert "metadata archive" in report.verdict


@pytest.mark.parametrize(("keep", "what"), [(0, "is empty"), (700, "is not JSON, perhaps truncated")])
@pytest.mark.parametrize("table", ["sample_data", "map"])
def test_a_truncated_table_is_named(broken_root, table, keep, what):
    path = broken_root / VERSION / f"{table}.json"
    path.write_bytes(path.read_bytes()[: min(keep, path.stat().st_size - 2)])
    assert what in problems(check(broken_root))[f"table {table}"].what


def test_a_large_table_is_judged_by_its_ends(broken_root):
    path = broken_root / VERSION / "sample_data.json"
    rows = json.dumps([{"token": "x" * 1000}] * 4100)
    for content, what in ((rows[:-500], "is truncated"), (rows.lstrip("["), "is not a list of records")):
        path.write_text(content)
        assert what in problems(check(broken_root))["table sample_data"].what


def test_tables_that_contradict_each_other_are_a_problem(broken_root):
    rewrite(broken_root / VERSION / "ego_pose.json", lambda rows: rows.pop())
    assert "index" in problems(check(broken_root))


def test_an_unknown_version_is_refused_and_several_need_a_choice(broken_root):
    with pytest.raises(BridgeTAError, match=r"has no tables of version v1.0-test. Use version v1.0-mini") as error:
        check(broken_root, "v1.0-test")
    assert error.value.exit_code == 2
    shutil.copytree(broken_root / VERSION, broken_root / "v1.0-own", copy_function=os.link)
    with pytest.raises(BridgeTAError, match=r"v1.0-mini, v1.0-own. Choose one with --version") as error:
        check(broken_root)
    assert error.value.exit_code == 2
    report = check(broken_root, "v1.0-own")
    assert the(report, "version").severity is Severity.NOTE
    assert "data.version=v1.0-own" in report.verdict


def test_a_root_without_tables_says_where_they_may_be(broken_root, tmp_path):
    report = check(broken_root.parent)
    assert problems(report)["version"].fix == f"Give {broken_root}"
    (tmp_path / "empty").mkdir()
    assert "Download the metadata" in check(tmp_path / "empty").verdict


def _no_expansion(path):
    path.unlink()


def _older(path):
    rewrite(path, lambda content: content.update(version="1.2"))


def _no_json(path):
    path.write_bytes(path.read_bytes()[:5000])


def _empty(path):
    rewrite(path, lambda content: [content[k].clear() for k in content if isinstance(content[k], list)])


def _dangling(path):
    rewrite(path, lambda content: content["node"].clear())


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_no_expansion, "maps/expansion/boston-seaport.json: the map expansion is missing"),
        (_older, "is map expansion v1.2, v1.3 is needed"),
        (_no_json, "is not JSON, perhaps truncated"),
        (_empty, "holds no shape of any class"),
        (_dangling, "is not a map expansion v1.3"),
    ],
)
def test_a_city_without_a_good_map_expansion_is_named(broken_root, damage, what):
    damage(broken_root / "maps" / "expansion" / "boston-seaport.json")
    found = problems(check(broken_root))
    assert list(found) == ["map of boston-seaport"]
    assert what in found["map of boston-seaport"].what
    assert "Download the map expansion v1.3" in found["map of boston-seaport"].fix


def test_an_empty_layer_is_unknown_which_is_a_note(broken_root):
    path = broken_root / "maps" / "expansion" / "singapore-onenorth.json"
    rewrite(path, lambda content: [content[k].clear() for k in ("walkway", "road_divider", "lane_divider")])
    item = the(check(broken_root), "map of singapore-onenorth")
    assert item.severity is Severity.NOTE
    assert item.what == "has no walkway, divider: unknown there, so neither trained nor scored"


def test_a_missing_camera_folder_and_its_scenes_are_reported(broken_root):
    shutil.rmtree(broken_root / "samples" / "CAM_BACK")
    report = check(broken_root)
    found = problems(report)
    assert list(found) == ["CAM_BACK", "scenes"]
    assert found["CAM_BACK"].what == "0 of 4 keyframes, 4 of 4 sweeps"
    assert "v1.0-mini.tgz" in found["CAM_BACK"].fix
    assert found["scenes"].what == "2 of 2 scenes lack some of their files: scene-0061, scene-0103"
    assert len(report.bad_files) == 4


def test_a_missing_blob_shows_in_scenes_without_files(broken_root):
    for path in files(broken_root, "s*/*/scene-0103*"):
        path.unlink()
    found = problems(check(broken_root))
    assert found["CAM_FRONT"].what == "2 of 4 keyframes, 2 of 4 sweeps"
    assert found["scenes"].what == "1 of 2 scenes lack all of their files: scene-0103"


@pytest.mark.parametrize("kind", ["samples", "sweeps"])
def test_a_few_missing_files_are_a_problem(broken_root, kind):
    path = files(broken_root, f"{kind}/LIDAR_TOP/*")[0]
    path.unlink()
    report = check(broken_root)
    assert list(problems(report)) == ["LIDAR_TOP", "scenes"]
    assert report.bad_files == [str(path.relative_to(broken_root))]


def test_a_blob_one_folder_too_deep_is_found(broken_root):
    (broken_root / "v1-blobs").mkdir()
    for kind in ("samples", "sweeps"):
        (broken_root / kind).rename(broken_root / "v1-blobs" / kind)
    assert f"Move what is in {broken_root / 'v1-blobs'} to {broken_root}" in check(broken_root).verdict


def test_a_file_without_content_is_named(broken_root):
    path = files(broken_root, "samples/CAM_FRONT/*")[0]
    path.write_bytes(b"")
    report = check(broken_root)
    assert path.name in problems(report)["empty files"].what
    assert report.bad_files == [str(path.relative_to(broken_root))]


def test_a_root_without_any_sweeps_is_fit_for_training(broken_root):
    shutil.rmtree(broken_root / "sweeps")
    report = check(broken_root)
    assert report.exit_code == 0
    assert "the teacher gets keyframes only" in the(report, "LIDAR_TOP").what
    assert "--keyframes-only" in the(report, "CAM_BACK").fix
    (broken_root / "sweeps" / "LIDAR_TOP").mkdir(parents=True)  # training counts sweeps where there is a folder
    assert "LIDAR_TOP" in problems(check(broken_root))


def test_radars_that_were_not_extracted_are_a_note(broken_root):
    sensor = {"token": "s-R", "channel": "RADAR_FRONT", "modality": "radar"}
    rewrite(broken_root / VERSION / "sensor.json", lambda rows: rows.append(sensor))
    rewrite(
        broken_root / VERSION / "calibrated_sensor.json",
        lambda rows: rows.append({**rows[-1], "token": "c-R", "sensor_token": "s-R", "camera_intrinsic": []}),
    )

    def radar(rows):
        row = next(r for r in rows if "LIDAR_TOP-0" in r["token"])
        name = "samples/RADAR_FRONT/r.pcd"
        rows.append({**row, "token": "r", "calibrated_sensor_token": "c-R", "filename": name})

    rewrite(broken_root / VERSION / "sample_data.json", radar)
    report = check(broken_root, deep=True, jobs=1)
    assert the(report, "RADAR_FRONT").what == "0 of 1 keyframes; nothing reads them"
    assert report.exit_code == 0


@pytest.mark.parametrize("version", ["v1.0-test", "v1.0-trainval"])
def test_the_version_decides_what_is_proposed(broken_root, version):
    (broken_root / VERSION).rename(broken_root / version)
    verdict = check(broken_root).verdict
    assert ("nothing to train on" in verdict) == (version == "v1.0-test")


def test_a_cache_that_cannot_be_written_is_a_note(small_root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "file" / "cache"))
    report = check(small_root)
    item = the(report, "cache")
    assert item.severity is Severity.NOTE
    assert "cannot be written" in item.what
    assert "BRIDGETA_CACHE" in item.fix
    assert report.exit_code == 0


def test_a_full_disk_is_a_note(small_root, monkeypatch):
    usage = shutil.disk_usage(small_root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    report = check(small_root)
    assert [the(report, item).severity for item in ("cache", "frame cache")] == [Severity.NOTE] * 2


def test_the_index_is_built_once(small_root, tmp_path, monkeypatch):
    monkeypatch.setenv("BRIDGETA_CACHE", str(tmp_path / "cache"))
    assert "built now" in the(check(small_root), "index").what
    assert "opened" in the(check(small_root), "index").what


def _damage(root):
    """One of every kind of damage; returns the damaged files and what is said of them, in order."""
    images = files(root, "samples/CAM_FRONT/*")
    data = images[0].read_bytes()
    images[0].write_bytes(data[: len(data) // 2])
    half = len(data) // 2
    images[1].write_bytes(data[:half] + b"\xff\xd9" + data[half + 2 :])
    cv2.imwrite(str(images[2]), np.zeros((30, 50, 3), np.uint8))
    images[3].write_text("<html>not found</html>")
    sweeps = files(root, "sweeps/LIDAR_TOP/*")
    sweeps[0].write_bytes(sweeps[0].read_bytes()[:-3])
    points = np.fromfile(sweeps[1], "<f4")
    points[7] = np.nan
    points.tofile(sweeps[1])
    said = ("truncated", "Corrupt JPEG data", "is 50x30 pixels, in the tables 64x36", "not a JPEG", "truncated")
    return dict(zip([*images, *sweeps[:2]], (*said, "1 of 50 points are not finite"), strict=True))


def test_damaged_files_are_found_by_decoding_them_all(broken_root):
    damage = _damage(broken_root)
    assert check(broken_root).exit_code == 0
    reports = [check(broken_root, deep=True, jobs=jobs) for jobs in (1, 2)]
    assert reports[0].problems == reports[1].problems  # the rest tells the time and the free space
    assert reports[0].bad_files == reports[1].bad_files
    said = [item.what for item in problems_named(reports[0], "damaged")]
    assert len(said) == len(damage)
    for path, what in damage.items():
        (line,) = [line for line in said if line.startswith(f"{path.relative_to(broken_root)}: ")]
        assert what in line
    assert reports[0].bad_files == sorted(str(path.relative_to(broken_root)) for path in damage)


def test_processes_that_cannot_be_started_are_one_message(small_root, monkeypatch):
    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(deepcheck.ProcessPoolExecutor, "submit", fail)
    with pytest.raises(BridgeTAError, match=r"cannot be started \(Too many open files\).*fewer --jobs"):
        check(small_root, deep=True, jobs=1)


def problems_named(report, name):
    return [item for item in report.problems if item.name == name]


def test_of_many_damaged_files_twenty_are_told_and_all_listed(broken_root, tmp_path):
    for path in files(broken_root, "s*/CAM_*/*"):
        path.write_bytes(b"x")
    for path in files(broken_root, "s*/LIDAR_TOP/*"):
        path.write_bytes(b"x")
    run = CliRunner().invoke(app, ["data", "check", str(broken_root), "--deep", "--list", str(tmp_path / "list")])
    assert run.exit_code == 1
    assert "24 files in all" in " ".join(run.output.split())
    assert run.output.strip().splitlines()[-1].startswith("Training cannot start yet. First: damaged: s")
    listed = (tmp_path / "list").read_text().splitlines()
    assert len(listed) == 24
    assert all((broken_root / path).is_file() for path in listed)


def test_an_interrupted_check_is_one_line_and_leaves_no_list(small_root, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(deepcheck.Progress, "advance", interrupt)
    run = CliRunner().invoke(app, ["data", "check", str(small_root), "--deep", "--list", str(tmp_path / "list")])
    assert run.exit_code == 130
    assert "interrupted" in run.output.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 0),
        (["--version", "v1.0-none"], 2),
    ],
)
def test_the_command_tells_its_result_by_its_exit_code(small_root, arguments, code):
    run = CliRunner().invoke(app, ["data", "check", str(small_root), *arguments])
    assert run.exit_code == code
    assert len(run.output.strip().splitlines()) == 1 or code == 0


def test_a_root_that_is_no_folder_is_a_wrong_argument(tmp_path):
    run = CliRunner().invoke(app, ["data", "check", str(tmp_path / "none")])
    assert run.exit_code == 2
    assert "is not a folder" in run.output


def test_a_problem_makes_the_exit_code_1(broken_root):
    files(broken_root, "samples/CAM_BACK/*")[0].unlink()
    assert CliRunner().invoke(app, ["data", "check", str(broken_root)]).exit_code == 1


def test_lidar_of_other_columns_shows_without_reading_all_files(broken_root):
    paths = files(broken_root, "s*/LIDAR_TOP/*")
    for path in paths:
        np.fromfile(path, "<f4").reshape(-1, 5)[:, :4].tofile(path)
    for deep, count in ((False, 1), (True, len(paths))):
        report = check(broken_root, deep=deep, jobs=1)
        assert report.exit_code == 1
        assert len(report.bad_files) == count
        item = problems_named(report, "damaged")[0]
        assert "4 columns of float32 (x, y, z, intensity, as KITTI has them)" in item.what
        assert "float32 x, y, z in metres" in item.fix


def test_a_rotation_that_is_none_is_named_with_table_and_record(broken_root):
    assert check(broken_root).exit_code == 0  # the index of the good tables is in the cache
    rewrite(broken_root / VERSION / "calibrated_sensor.json", lambda rows: rows[1].update(rotation=[0, 0, 0, 0]))
    report = check(broken_root)
    said = "calibrated_sensor.json: is not a table of nuScenes v1.0: rotation of record 1 (token c-CAM_BACK) is not"
    assert said in problems(report)["index"].what
    assert report.verdict.startswith("Training cannot start yet")


def test_missing_basemaps_are_a_note_without_an_index_too(broken_root):
    for path in files(broken_root, "maps/*.png"):
        path.unlink()
    report = check(broken_root)
    assert the(report, "basemaps").severity is Severity.NOTE
    assert report.exit_code == 0
