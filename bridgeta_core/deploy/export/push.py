"""Push weights to a hub, with a card that is written from their own description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridgeta_core.deploy.teacher_weights import TeacherInfo, read_any_info
from bridgeta_core.deploy.weights import WeightsInfo, find_weights
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.hub import HubPlace, explain_hub, parse_hub_place


def push_weights(weights: str | Path, place: str, *, licence: str | None = None, private: bool = False) -> str:
    """Push a weights file and its card to `hf://owner/name[@branch]`, and return the page of what came of it.

    The repository is made where there is none. `licence` is one of the hub's names of licences, for the card. Raises
    BridgeTAError when the weights cannot be read, the place is none for weights, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    where = parse_hub_place(place)
    if where.is_dataset or where.path:
        raise BridgeTAError("is no place to push weights to", where=place, fix="Write hf://owner/name", exit_code=2)
    path = find_weights(weights)
    card = format_card(read_any_info(path), where, path.name, licence)
    api = HfApi(library_name="bridgeta")
    with explain_hub(where):
        api.create_repo(where.repo, private=private, exist_ok=True)
        commit = api.create_commit(
            where.repo,
            [CommitOperationAdd(path.name, str(path)), CommitOperationAdd("README.md", card.encode())],
            commit_message=f"Add {path.name}",
            revision=where.revision,
        )
    return str(commit.commit_url)


def format_card(info: WeightsInfo, where: HubPlace, file: str, licence: str | None = None) -> str:
    """Format the card of a weights file, in Markdown: what it is, its use, what it learned from, how it scored."""
    origin = info.provenance
    is_teacher = isinstance(info, TeacherInfo)
    head = ["library_name: bridgeta", "tags: [bev, map-segmentation, autonomous-driving]"]
    if licence:
        head.insert(0, f"license: {licence}")
    image, grid = info.model.image, info.grid
    known = [name for name, learned in zip(info.classes, info.learned, strict=True) if learned]
    unknown = [name for name in info.classes if name not in known]
    kind = "teacher of LiDAR and cameras" if is_teacher else "camera-only student"
    use = (
        f"bridgeta train distill tiny distill.teacher={where}"
        if is_teacher
        else f"bridgeta replay drive bev --weights {where}"
    )
    rows = {
        "cameras": f"{len(info.cameras)} of {image.width}x{image.height} pixels: {', '.join(info.cameras)}",
        "grid": f"x {grid.x_min:g} to {grid.x_max:g} m, y {grid.y_min:g} to {grid.y_max:g} m, "
        f"cells of {grid.resolution:g} m",
        "classes": ", ".join(known) + (f"; not learned: {', '.join(unknown)}" if unknown else ""),
        "backbone": info.model.backbone.architecture,
        "trained by": _quote(origin.get("command")),
        "date": _quote(origin.get("date")),
        "samples": _quote(origin.get("train_samples")),
        "steps": _quote(origin.get("steps")),
        "synthetic data": "yes" if origin.get("synthetic_data") else "no",
        "validation": _format_validation(origin.get("validation")),
        "versions": _quote(origin.get("versions")),
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        "---\n" + "\n".join(head) + "\n---\n\n"
        f"# {where.repo.partition('/')[2]}\n\nA {kind} of BridgeTA, for bird's-eye-view map segmentation: `{file}`.\n\n"
        f"```console\n{use}\n```\n\n| | |\n|---|---|\n{table}\n"
    )


def _quote(value: Any) -> str:
    """Format a value of a description, which may hold anything, for a cell of a table."""
    if value is None:
        return "not said"
    text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return "`" + " ".join(text.replace("`", "'").replace("|", "\\|").split())[:1000] + "`"


def _format_validation(validation: Any) -> str:
    miou = validation.get("miou") if isinstance(validation, dict) else None
    return f"mean IoU {100 * miou:.1f} %" if isinstance(miou, float) else "not said"
