"""Check a dataset that a class of one's own reads: does training find what it needs, and do its parts agree?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bridgeta_core.config.experiment import LabelConfig, StudentConfig
from bridgeta_core.data.check.content import Expected, Fault, check_files
from bridgeta_core.data.check.files import check_frame_room
from bridgeta_core.data.check.report import Report, add_damaged, describe_problem
from bridgeta_core.data.dataset import Dataset, open_dataset
from bridgeta_core.data.maps.raster import MapRaster
from bridgeta_core.data.sample import LIDAR, Sample, SensorRecord
from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.coverage import find_remarks, measure_coverage
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.geometry.images import fit_images
from bridgeta_core.utils.errors import BridgeTAError, join_first
from bridgeta_core.utils.hub import find_root

_REMEDY = "Repair the files, or leave their samples out in the class that reads them"
_MAP_SAMPLES = 20  # whose surroundings are looked up in the map


def check_source(root: str | Path, version: str, source: str, *, deep: bool, jobs: int) -> Report:
    """Check what `source` reads from a root: samples, cameras, files, calibration, and maps where the vehicle drove.

    `deep` decodes every image and reads every LiDAR file in `jobs` processes; without it, the first of each sensor.
    Raises BridgeTAError (exit code 2) when there is no such source or root.
    """
    report, root = Report(), find_root(root)
    try:
        dataset = open_dataset(source, root, version)
    except BridgeTAError as error:
        if error.exit_code == 2:  # no such class, or no such folder
            raise
        report.add_problem("source", f"{source}: {_tell(error, root)}", error.fix or "")
        report.verdict = describe_problem(report)
        return report
    samples = [dataset[i] for i in range(len(dataset))]
    report.add_ok("source", f"{source}: {len(samples):,} samples in {len(dataset.scenes):,} scenes")
    cameras = _check_cameras(samples, report)
    _check_files(dataset.root, samples, report, jobs if deep else None)
    if cameras:
        _check_calibration(samples[0], cameras, report)
    _check_maps(dataset, samples, report)
    check_frame_room(len(samples), report)
    report.verdict = describe_problem(report) if report.problems else _describe_start(dataset, source, cameras, samples)
    return report


def _check_cameras(samples: Sequence[Sample], report: Report) -> list[str]:
    """Count the samples that have each sensor, and return the cameras that all have."""
    counts = Counter(name for sample in samples for name in sample.records)
    whole = []
    for name, count in counts.items():
        what = f"{count:,} of {len(samples):,} samples"
        if count == len(samples):
            report.add_ok(name, what)
            whole.append(name)
        elif name == LIDAR:
            report.add_note(name, what, "A teacher needs it in every sample that is trained on")
        else:
            lacking = [sample.token for sample in samples if name not in sample.records]
            fix = "A sample without a camera cannot be used with it: leave out the one or the other"
            report.add_note(name, f"{what}; not in {join_first(lacking, 2)}", fix)
    cameras = [name for name in whole if name != LIDAR]
    if not cameras:
        report.add_problem("cameras", "no camera is in all samples", "Leave out samples that lack one")
    return cameras


def _check_files(root: Path, samples: Sequence[Sample], report: Report, jobs: int | None) -> None:
    """Look for files that are missing, empty or, where `jobs` says by how many processes, damaged."""
    records = [record for sample in samples for record in sample.records.values()]
    sizes = {record.path: _measure(record.path) for record in records}
    for word, wrong in (("missing", None), ("empty", 0)):
        paths = [_name(path, root) for path, size in sizes.items() if size == wrong]
        if paths:
            report.add_problem(f"{word} files", f"{len(paths):,}: {join_first(sorted(paths), 3)}", _REMEDY)
            report.bad_files = sorted({*report.bad_files, *paths})
    there = {record.path: record for record in records if sizes[record.path]}
    first = {record.channel: record for record in reversed(there.values())}
    looked_at = list(first.values() if jobs is None else there.values())
    expected = [_expect(record, root) for record in looked_at]
    faults = [_explain(fault) for fault in check_files(root, expected, jobs)]
    add_damaged(report, faults, _REMEDY)
    if not faults and looked_at:
        which = f"{len(looked_at):,} files are whole" if jobs else "the first file of each sensor is whole"
        report.add_ok("content", which if jobs else f"{which}; --deep looks at all")


def _tell(error: BridgeTAError, root: Path) -> str:
    """Tell an error without what to do about it, which has a place of its own."""
    return error.what if error.where is None else f"{_name(Path(str(error.where)), root)}: {error.what}"


def _measure(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _expect(record: SensorRecord, root: Path) -> Expected:
    is_camera = record.channel != LIDAR
    return Expected(_name(record.path, root), *((record.width, record.height) if is_camera else (0, 0)))


def _explain(fault: Fault) -> Fault:
    """Say what is wrong without nuScenes' words."""
    return Fault(fault.path, fault.what.replace("in the tables", "by the record"), fault.fix)


def _check_calibration(sample: Sample, cameras: Sequence[str], report: Report) -> None:
    """Say what in the calibration of the first sample is probably not meant."""
    model, rig = StudentConfig(), sample.rig(cameras)
    fits = list(fit_images(rig, model.image.size, model.image.margin).values())
    coverage = measure_coverage(rig, fits, BevGrid(), model.lift.depth_min, model.lift.depth_max)
    remarks = find_remarks(coverage)
    for remark in remarks:
        report.add_note("calibration", remark, "Look at bridgeta view ROOT PICTURE.png")
    if not remarks:
        report.add_ok("calibration", f"{len(cameras)} cameras lie and look as on a vehicle")


def _check_maps(dataset: Dataset, samples: Sequence[Sample], report: Report) -> None:
    """Read each map, and look whether something of it lies around the vehicle."""
    grid = BevGrid()
    by_location: dict[str, list[Sample]] = {}
    for sample in samples:
        by_location.setdefault(sample.location, []).append(sample)
    for location, there in by_location.items():
        try:
            raster = dataset.raster(location, LabelConfig())
        except BridgeTAError as error:
            report.add_problem(f"map {location}", _tell(error, dataset.root), error.fix or "Repair read_map")
            continue
        chosen = [there[i] for i in np.unique(np.linspace(0, len(there) - 1, _MAP_SAMPLES).round().astype(int))]
        _report_map(f"map {location}", raster, [_count_cells(raster, sample, grid) for sample in chosen], report)


def _count_cells(raster: MapRaster, sample: Sample, grid: BevGrid) -> dict[str, int]:
    cells = raster.rasterise(sample.global_T_ego, grid).reshape(len(CLASS_NAMES), -1).sum(axis=1)
    return dict(zip(CLASS_NAMES, cells.tolist(), strict=True))


def _report_map(name: str, raster: MapRaster, counts: Sequence[Mapping[str, int]], report: Report) -> None:
    known = [cls for cls, is_known in zip(CLASS_NAMES, raster.known, strict=True) if is_known]
    if not known:
        report.add_problem(name, "knows none of the six classes", "Give it layers of bridgeta_core.geometry.classes")
        return
    empty = sum(not any(cells.values()) for cells in counts)
    if empty:
        what = f"nothing of it lies within 50 m of the vehicle in {empty} of {len(counts)} samples"
        fix = "Are poses and map in the same frame and in metres? Look at bridgeta view ROOT PICTURE.png"
        add = report.add_problem if empty == len(counts) else report.add_note
        add(name, what, fix)
    else:
        report.add_ok(name, f"lies around the vehicle; knows {', '.join(known)}")
    if unknown := [cls for cls in CLASS_NAMES if cls not in known]:
        fix = "They are neither trained nor scored from it"
        report.add_note(name, f"does not know {', '.join(unknown)}", fix)


def _describe_start(dataset: Dataset, source: str, cameras: Sequence[str], samples: Sequence[Sample]) -> str:
    """Give the command that trains on a root without problems."""
    kind = "teacher" if all(LIDAR in sample.records for sample in samples) else "student"
    scenes = [scene.name for scene in dataset.scenes]
    hint = (
        " (choose data.train_scenes and data.val_scenes: these are validated on what was trained on)"
        if len(scenes) > 1
        else " (it validates on what it was trained on: record another scene)"
    )
    return (
        f"Training can start: bridgeta train {kind} tiny data.source={source} data.train_root={dataset.root} "
        f'data.val_root={dataset.root} "data.cameras=[{", ".join(cameras)}]"{hint}.'
    )
