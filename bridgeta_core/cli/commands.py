"""The `bridgeta` commands on datasets, training and weights; bridgeta_ros.commands adds those on bags."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bridgeta_core.cli.catalogue import config, weights
from bridgeta_core.cli.common import (
    STUDENTS,
    Backend,
    Commands,
    Configuration,
    Overrides,
    Precision,
    Root,
    Source,
    Version,
    console,
    find_table_version,
    say,
    show,
)
from bridgeta_core.cli.data import data_app
from bridgeta_core.cli.deploy import bench, calibrate, import_weights, push, quantise
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.files import check_folder, hold_lock
from bridgeta_core.utils.outputs import check_output, replace_when_done

# Heavy imports (torch, Lightning, the devkit) stand inside the commands: `bridgeta --help` answers at once, and a
# vehicle without the [train] extra can run the commands that do not need it.

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_app = typer.Typer(no_args_is_help=True, help="Train a network.")
app.add_typer(train_app, name="train")
app.add_typer(data_app, name="data")
app.command(epilog=show("bridgeta bench tiny --repeats 100"))(bench)
app.command(epilog=show("bridgeta calibrate runs/a/student.safetensors data/val student.safetensors"))(calibrate)
app.command(name="import", epilog=show("bridgeta import camera-only-seg.pth camera.safetensors"))(import_weights)
app.command(epilog=show("bridgeta push runs/bridgeta/student.safetensors hf://me/bev --licence apache-2.0"))(push)
app.command(epilog=show("bridgeta quantise tiny data/val tiny_int8.safetensors"))(quantise)
app.command(epilog=show("bridgeta config tiny --diff small"))(config)
app.command(epilog=show("bridgeta weights"))(weights)


def _print_version(wanted: bool) -> None:
    if wanted:
        import bridgeta_core

        print(f"bridgeta {bridgeta_core.__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Camera-only bird's-eye-view map segmentation, distilled from a LiDAR-camera teacher."""


_MOST_UNASKED = 20  # runs of a study, which may take days

Resume = Annotated[bool, typer.Option("--resume", help="Continue after the last finished epoch.")]


@train_app.command(epilog=show("bridgeta train teacher tiny data.train_root=data/town data.val_root=data/val"))
def teacher(
    configuration: Configuration,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of this run.")] = Path("runs/teacher"),
    resume: Resume = False,
) -> None:
    """Train the LiDAR-camera teacher on its labels."""
    from bridgeta_core.config import experiment as config
    from bridgeta_core.training.train import train_teacher

    experiment = config.load(config.Experiment, configuration, overrides or [])
    say(f"Wrote {train_teacher(experiment, out, resume)}")


@train_app.command(epilog=show("bridgeta train student tiny data.train_root=data/town train.epochs=2 --out runs/a"))
def student(
    configuration: Configuration,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of this run.")] = Path("runs/student"),
    resume: Resume = False,
) -> None:
    """Train the camera-only student on its labels."""
    from bridgeta_core.config import experiment as config
    from bridgeta_core.training.train import train_student

    experiment = config.load(config.Experiment, configuration, overrides or [])
    say(f"Wrote {train_student(experiment, out, resume)}")


@train_app.command(
    epilog=show("bridgeta train distill tiny distill.teacher=runs/teacher/teacher.safetensors --out runs/b")
)
def distill(
    configuration: Configuration,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of this run.")] = Path("runs/distill"),
    resume: Resume = False,
) -> None:
    """Train the camera-only student on its labels and with a trained teacher, `distill.teacher`."""
    from bridgeta_core.config import experiment as config
    from bridgeta_core.training.train import train_distill

    experiment = config.load(config.Experiment, configuration, overrides or [])
    say(f"Wrote {train_distill(experiment, out, resume)}")


@app.command(name="eval", epilog=show("bridgeta eval tiny data/val --against tiny_labels --out results"))
def evaluate(
    weights: Annotated[
        str, typer.Argument(help=f"A .safetensors file, or one of {', '.join(STUDENTS)} and tiny_teacher.")
    ],
    root: Root,
    version: Version = None,
    scenes: Annotated[str, typer.Option(help="all, an official split (val), or scene names with commas.")] = "all",
    baseline: Annotated[
        Path | None, typer.Option(help="Training root; its mean mask, thresholded, is scored as a baseline.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Other weights to compare with on the same samples, paired by scene.")
    ] = None,
    seen: Annotated[
        bool, typer.Option("--seen", help="Score also the cells alone that a camera looks at and the LiDAR reaches.")
    ] = False,
    fused: Annotated[
        bool, typer.Option("--fused", help="Score also predictions fused along each scene, as a local map does.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.json and its pictures.")] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="compatible (as the nuScenes devkit draws them), bevfusion (the same along the LiDAR's axes) or exact "
            "(cells at least half covered)."
        ),
    ] = "compatible",
    source: Source = "nuscenes",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: Backend = "torch",
    precision: Precision = "float32",
) -> None:
    """Score weights on a dataset: IoU per class and by range, by BEVFusion's protocol, and average precision.

    Intervals are of 95 %, by a bootstrap over scenes.
    """
    from bridgeta_core.config import experiment as config
    from bridgeta_core.deploy.teacher_weights import read_any_info
    from bridgeta_core.evaluation.evaluate import evaluate_constant, evaluate_weights
    from bridgeta_core.evaluation.report import Comparison
    from bridgeta_core.view.sample import write_picture

    if out is not None:
        check_folder(out)
    grid, version = read_any_info(weights).grid, find_table_version(root, version, source)
    if against is not None and read_any_info(against).grid != grid:
        what = f"{weights} and {against} have different grids, so their cells cannot be compared"
        raise BridgeTAError(what, fix="Evaluate each by itself", exit_code=2)
    label_config = config.from_mapping(config.LabelConfig, {"mode": labels}, where="--labels")
    report, *others = (
        evaluate_weights(
            name,
            root,
            version,
            scenes,
            labels=label_config,
            source=source,
            device=device,
            backend=backend,
            precision=precision,
            seen=seen,
            fused=fused,
            worst=out is not None and name == weights,
        )
        for name in (weights, against)
        if name is not None
    )
    comparison = Comparison.of(report, others[0]) if others else None
    console.print(report.build_table())
    console.print(report.build_interval_table())
    if comparison is not None:
        console.print(others[0].build_table())
        console.print(comparison.build_table())
    if baseline is not None:
        train_version = find_table_version(baseline, None, source)
        constant = evaluate_constant(
            baseline, train_version, root, version, scenes, grid=grid, labels=label_config, source=source
        )
        console.print(constant.build_table("Best constant prediction (mean training mask)"))
    if out is not None:
        with hold_lock(out / ".lock", wait=True):  # so that both are of one evaluation
            with replace_when_done(out / "evaluation.json") as temporary:
                content = report.to_mapping() | (comparison.to_mapping() if comparison is not None else {})
                temporary.write_text(json.dumps(content, indent=2))
            with replace_when_done(out / "evaluation.png") as temporary:
                report.draw(temporary)
            with replace_when_done(out / "curves.png") as temporary:
                report.draw_curves(temporary)
            if report.worst is not None:
                write_picture(report.worst, out / "worst.png")
        pictures = ["evaluation.png", "curves.png", *(["worst.png"] if report.worst is not None else [])]
        say(f"Wrote {out / 'evaluation.json'}, {', '.join(pictures)}")


@app.command(epilog=show("bridgeta view data/val sample.png --sample 3 --weights tiny"))
def view(
    root: Annotated[Path, typer.Argument(help="nuScenes-format folder (with v1.0-*, maps, samples), or a rig.yaml.")],
    out: Annotated[Path, typer.Argument(help="Picture to write, .png or .jpg.")],
    sample: Annotated[str | None, typer.Option(help="Token or index of the sample; the first by default.")] = None,
    weights: Annotated[str | None, typer.Option(help="Also draw the prediction of these weights.")] = None,
    boxes: Annotated[bool, typer.Option("--boxes", help="Also draw the annotated objects.")] = False,
    points: Annotated[bool, typer.Option("--points/--no-points", help="Draw the LiDAR into the cameras.")] = True,
    check: Annotated[
        bool,
        typer.Option("--check", help="Draw a sheet of random samples instead, to see whether labels and images agree."),
    ] = False,
    count: Annotated[int, typer.Option(help="With --check: how many samples.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="With --check: the same seed chooses the same samples.", min=0)] = 0,
    scenes: Annotated[
        str, typer.Option(help="With --check: all, an official split (val), or scene names with commas.")
    ] = "all",
    version: Version = None,
    source: Source = "nuscenes",
) -> None:
    """Draw a sample: cameras with the map drawn into them, LiDAR, ground truth and prediction.

    Of a rig.yaml draw what its cameras see of the grid, and say what in it is not plausible.
    """
    if root.suffix in (".yaml", ".yml"):
        from bridgeta_core.view.coverage import write_rig_picture

        if sample is not None or boxes or check:
            raise BridgeTAError("a rig.yaml has no samples; leave out --sample, --boxes and --check", exit_code=2)
        for remark in write_rig_picture(root, out, weights):
            say(f"note: {remark}")
        say(f"Wrote {out}")
        return
    if check:
        from bridgeta_core.view.contact_sheet import write_contact_sheet

        if sample is not None or weights is not None or boxes:
            what = "--check shows random samples with their labels; leave out --sample, --weights and --boxes"
            raise BridgeTAError(what, exit_code=2)
        version = find_table_version(root, version, source)
        write_contact_sheet(root, version, out, count=count, seed=seed, scenes=scenes, source=source)
        say(f"Wrote {out}")
        return
    from bridgeta_core.view.sample import write_sample_picture

    if boxes and source != "nuscenes":
        raise BridgeTAError("--boxes draws the objects in nuScenes' tables; other sources have none", exit_code=2)
    version = find_table_version(root, version, source)
    remarks = write_sample_picture(
        root, version, sample, out, weights=weights, points_in_cameras=points, boxes=boxes, source=source
    )
    for remark in remarks:
        say(f"note: {remark}")
    say(f"Wrote {out}")


@app.command(epilog=show("bridgeta study tiny data.train_root=data/train data.val_root=data/val seeds=[0,1] --plan"))
def study(
    configuration: Annotated[str, typer.Argument(help="YAML file, or a shipped name: tiny, ablations, claim.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings of the study or of all its runs as key=value, e.g. seeds=[0,1] train.epochs=3."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the runs; with --render-only also a file that --collect wrote.")
    ] = Path("runs/study"),
    plan: Annotated[
        bool, typer.Option("--plan", help="Only list the runs, which are done and how long the rest takes.")
    ] = False,
    render_only: Annotated[
        bool, typer.Option("--render-only", help="Only write the table of the finished runs.")
    ] = False,
    jobs: Annotated[int, typer.Option(help="Number of runs at a time; they share the cores.", min=1)] = 1,
    yes: Annotated[bool, typer.Option("--yes", help=f"Start more than {_MOST_UNASKED} runs.")] = False,
    table: Annotated[
        Path | None, typer.Option(help="Page to write, .md; its figure goes beside it. OUT/results.md by default.")
    ] = None,
    collect: Annotated[
        Path | None,
        typer.Option(help="Only write what the table needs to this .json file, which --render-only takes as OUT."),
    ] = None,
) -> None:
    """Compare ways to train, called arms, and write a table and a figure: on shares of the labels, with several seeds.

    Every run is a folder of its own; after an interruption the same command continues.
    """
    from bridgeta_core.study import study as studies
    from bridgeta_core.study.config import load_study
    from bridgeta_core.study.results import collect as collect_runs

    settings = load_study(configuration, overrides or [])
    if not out.is_file():
        check_folder(out)
    elif not render_only:
        fix = "Add --render-only, or name the folder of the runs"
        raise BridgeTAError("is a file", where=out, fix=fix, exit_code=2)
    if plan:
        console.print(studies.build_overview(settings, out, jobs))
        return
    if collect is not None:
        say(f"Collected {collect_runs(settings, out, collect)} runs in {collect}")
        return
    target = table or (out.with_suffix(".md") if out.is_file() else out / "results.md")
    check_output(target)
    failures = []
    if not render_only:
        number, work = studies.describe_work(settings, out, jobs)
        if number > _MOST_UNASKED and not yes:
            fix = "Add --yes to start them, --plan to list them, or take fewer, as by seeds=[0]"
            what = f"more than {_MOST_UNASKED} runs are not started unasked ({work})"
            raise BridgeTAError(what, where=out, fix=fix, exit_code=2)
        say(work)
        failures = studies.run_study(settings, out, jobs, console)
    if failures:
        say(studies.describe_failures(failures))
    command = studies.format_render_command(configuration, overrides or [], out, table)
    page, figure = studies.render_study(settings, out, target, command)
    say(f"Wrote {page} and {figure}")
    if failures:
        raise BridgeTAError(f"runs that failed: {len(failures)}", where=out, fix="The same command tries them again")
