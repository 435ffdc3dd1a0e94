"""All that we want to know of a GPU, in one command: `python bench/gpu.py OUT [--minutes 9] [--device cuda]`.

A GPU is rarely at hand, and then for a quarter of an hour on a bare machine. The steps run one after the other, each in
a process and a time limit of its own, and what a step prints is in OUT/gpu.md as soon as it is printed, so that nothing
that breaks costs more than itself. The last step trains with the time that is left. `--only` names the steps to run. On
a CPU the same steps run with small numbers, to try the command.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import time
from pathlib import Path

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.machine import resolve_device

HERE = Path(__file__).parent
ROOT = HERE.parent
CUDA_TESTS = [f"test/core/{room}" for room in ("model", "deploy")] + ["test/synth/dataset/test_frames.py"]


def list_steps(device: str, out: Path) -> dict[str, tuple[int, list[str]]]:
    """List the steps: name to the seconds that it may take at most, and its command."""
    on = ["--device", device]
    cpu = device == "cpu"
    few = ["--repeats", "2"] if cpu else ["--repeats", "50"]
    networks = ["tiny"] if cpu else ["tiny", "small", "nuscenes_swin_t", "--compile"]
    training = "tiny" if cpu else "small"
    world = ["--scenes", "1", "--duration", "0.5"] if cpu else ["--scenes", "2", "--duration", "3"]
    return {
        "machine": (30, [sys.executable, str(HERE / "gpu.py"), "--describe", *on]),
        "tests": (120, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", *CUDA_TESTS]),
        "lift": (90, [sys.executable, str(HERE / "lift.py"), *on, *few]),
        "forward": (200, [sys.executable, str(HERE / "forward.py"), *networks, *on, *few]),
        "back ends": (90, [sys.executable, str(HERE / "backends.py"), "tiny", *on, *few]),
        "training step": (
            90,
            [
                sys.executable,
                str(HERE / "distill_cost.py"),
                "--config",
                training,
                *on,
                "--repeats",
                "2" if cpu else "5",
            ],
        ),
        "rendering": (120, [sys.executable, str(HERE / "synth.py"), "--tables", "tensors", *world, *on]),
        "fresh": (3600, [sys.executable, str(HERE / "fresh.py"), str(out / "fresh"), *on]),
    }


def describe(device: str) -> None:
    """Print what the machine is, and how fast its memory and its matrix products are."""
    import torch
    from machine import milliseconds_on, name_device

    print(f"{name_device(device)}, torch {torch.__version__}, {sys.version.split()[0]}, {datetime.date.today()}")
    cpu = device == "cpu"
    size, side = (2**24, 1024) if cpu else (2**31, 8192)
    a, b = torch.empty(size, dtype=torch.uint8, device=device), torch.empty(size, dtype=torch.uint8, device=device)
    kind = torch.float32 if cpu else torch.bfloat16
    x, y = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    copy = min(milliseconds_on(device, lambda: a.copy_(b)) for _ in range(10))
    product = min(milliseconds_on(device, lambda: x @ y) for _ in range(10))
    print(f"copy {2e-9 * size / copy:.2f} TB/s; product of {kind} matrices {2e-9 * side**3 / product:.0f} TFLOP/s")


def run(command: list[str], limit: float, log: Path) -> str:
    """Run a step with its output appended to the log, and say how it ended."""
    start = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with log.open("ab") as file:
        try:
            code = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=limit, check=False
            ).returncode
            ended = "done" if code == 0 else f"ended with status {code}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after its {limit:.0f} s"
    return f"{ended} in {time.monotonic() - start:.0f} s"


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description="Tests, timings and a training on a GPU.")
    parser.add_argument("out", type=Path, nargs="?", default=Path("out/gpu"))
    parser.add_argument("--minutes", type=float, default=9.0, help="for all steps together")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="*", help="names of the steps to run")
    parser.add_argument("--fresh", nargs=argparse.REMAINDER, default=[], help="arguments of fresh.py, last of all")
    parser.add_argument("--describe", action="store_true", help="print what the machine is")
    options = parser.parse_args()
    if options.describe:
        describe(options.device)
        return
    steps = list_steps(options.device, options.out.resolve())
    if unknown := sorted({*(options.only or ())} - {*steps}):
        parser.error(f"there is no step {', '.join(unknown)}; there are {', '.join(steps)}")
    try:
        resolve_device(options.device)
    except BridgeTAError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    log, end = options.out / "gpu.md", time.monotonic() + 60 * options.minutes
    failed = False
    for name, (limit, command) in steps.items():
        left = end - time.monotonic()
        if (options.only and name not in options.only) or left < 10:
            continue
        if name == "fresh":
            command += ["--minutes", f"{max(0.5, left / 60 - 0.5):.2f}", *options.fresh]
        with log.open("a") as file:
            file.write(f"\n## {name}\n\n")
        ended = run(command, min(limit, left), log)
        with log.open("a") as file:
            file.write(f"\n({name}: {ended})\n")
        print(f"{name}: {ended}", flush=True)
        failed |= not ended.startswith("done")
    print(log.read_text())
    sys.exit(failed)


if __name__ == "__main__":
    main()
