"""Read the map expansion of a nuScenes root: the shapes of a city's map layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from bridgeta_core.geometry.classes import CLASSES, LINE_LAYERS
from bridgeta_core.utils.arrays import Flags, Floats, Ints, Objects
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.limits import LARGEST_MAP, parse_json, read_limited
from bridgeta_core.utils.misplaced import find_misplaced
from bridgeta_core.utils.names import is_name

MAP_VERSION = "1.3"
_DOWNLOAD = "Download the map expansion v1.3 from nuscenes.org and extract it into maps/, so that this file exists"

_WIDEST = 2e5  # metres; no city has nodes farther apart

# The map layers that make up the classes.
LAYERS: tuple[str, ...] = tuple(dict.fromkeys(layer for c in CLASSES for layer in c.layers))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() and len(part) < 10 else 0 for part in version.split("."))


def load_layers(root: str | Path, location: str, names: Sequence[str] = LAYERS) -> dict[str, Objects]:
    """Read the shapes of map layers from a city's map expansion.

    Raises BridgeTAError when the file is absent, truncated, older than v1.3, or refers to what it does not hold, and
    when a node lies far from the city.
    """
    content = read_expansion(root, location)
    try:
        return read_layers(content, names)
    except UNFIT as error:
        message = f"is not a map expansion v1.3 ({type(error).__name__}: {error})"
        raise BridgeTAError(message, where=expansion_path(root, location), fix=_DOWNLOAD) from error


def expansion_path(root: str | Path, location: str) -> Path:
    """Return the path of a city's map expansion below a nuScenes root. Raises BridgeTAError for no name of a city."""
    if not is_name(location):
        raise BridgeTAError(f"location {location[:100]!r} is not the name of a city", where=root, fix=_DOWNLOAD)
    return Path(root) / "maps" / "expansion" / f"{location}.json"


def read_expansion(root: str | Path, location: str) -> dict[str, Any]:
    """Read `maps/expansion/<location>.json` of a nuScenes root.

    Raises BridgeTAError when the file is absent, is not JSON, or is older than v1.3.
    """
    path = expansion_path(root, location)
    try:
        content = parse_json(read_limited(path, LARGEST_MAP))
    except FileNotFoundError as error:
        raise _explain_missing(Path(root), path) from error
    except OSError as error:
        raise BridgeTAError(f"cannot be read ({error.strerror})", where=path, fix=_DOWNLOAD) from error
    except ValueError as error:
        raise BridgeTAError(f"is not JSON, perhaps truncated ({error})", where=path, fix=_DOWNLOAD) from error
    version = str(content.get("version", "1.0") if isinstance(content, dict) else "1.0")
    if _numbers(version) < _numbers(MAP_VERSION):
        raise BridgeTAError(f"is map expansion v{version[:20]}, v1.3 is needed", where=path, fix=_DOWNLOAD)
    return dict(content)


def _explain_missing(root: Path, path: Path) -> BridgeTAError:
    """Make the error for a missing map expansion: where it lies instead, if it does."""
    what, fix = "the map expansion is missing", _DOWNLOAD
    if found := find_misplaced(root, str(path.relative_to(root))):
        what, fix = f"{what}; it lies in {found.parent}", f"Move the .json files of {found.parent} to {path.parent}"
    elif archives := [p for folder in (root, root / "maps", root.parent) for p in folder.glob("*map-expansion*.zip")]:
        what, fix = f"{what}; it is not extracted from {archives[0]}", f"Extract it into {root / 'maps'}"
    elif any((root / "maps").glob("*.png")):
        what = f"{what}; maps/ holds only the basemap images, which come with the tables"
    return BridgeTAError(what, where=path, fix=fix)


def expansion_folder(root: str | Path) -> Path:
    """Return the folder of a nuScenes root that holds the map expansions of its cities."""
    return expansion_path(root, "any").parent


def read_layers(content: Mapping[str, Any], names: Sequence[str] = LAYERS) -> dict[str, Objects]:
    """Build the shapely polygons or lines, in global metres, of layers of a map expansion's content.

    Invalid polygons are repaired in the drivable area and left out elsewhere, as in the devkit. What does not fit
    raises whatever Python or shapely does, and a node far from the city ValueError.
    """
    nodes = {node["token"]: i for i, node in enumerate(content["node"])}
    xy = np.array([(node["x"], node["y"]) for node in content["node"]], dtype=np.float64).reshape(-1, 2)
    _require_city(xy, list(nodes))
    polygons = {record["token"]: record for record in content["polygon"]}
    lines = {record["token"]: record["node_tokens"] for record in content["line"]}
    result = {}
    for name in names:
        records = content.get(name, [])
        if name in LINE_LAYERS:
            # Some cities have lines without nodes; the devkit skips them too.
            chains = [tokens for tokens in (lines[record["line_token"]] for record in records) if len(tokens) > 1]
            result[name] = _build_chains(chains, nodes, xy, shapely.linestrings)
        elif name == "drivable_area":  # the one layer whose records hold several polygons
            parts = [polygons[token] for record in records for token in record["polygon_tokens"]]
            areas = _build_areas(parts, nodes, xy)
            broken = ~shapely.is_valid(areas)
            areas[broken] = shapely.make_valid(areas[broken])
            result[name] = areas
        else:
            areas = _build_areas([polygons[record["polygon_token"]] for record in records], nodes, xy)
            result[name] = areas[shapely.is_valid(areas)]
    return result


UNFIT = (AttributeError, KeyError, TypeError, IndexError, ValueError, OverflowError, shapely.GEOSException)
"""What reading layers raises for content that does not fit."""


def _require_city(xy: Floats, tokens: Sequence[str]) -> None:
    """Raise ValueError for a node that lies farther from the others than any city reaches.

    One such node would draw an area out over millions of tiles.
    """
    if not len(xy):
        return
    if not np.isfinite(xy).all():
        raise ValueError("a node's place is not finite")
    distance = np.abs(xy - np.median(xy, axis=0)).max(axis=1)
    if distance.max() > _WIDEST / 2:
        far = int(distance.argmax())
        raise ValueError(f"node {str(tokens[far])[:40]} lies {distance[far] / 1e3:,.0f} km from the others")


def _build_areas(records: list[dict[str, Any]], nodes: Mapping[str, int], xy: Floats) -> Objects:
    """Build polygons with their holes. Rings of fewer than three nodes enclose nothing and are left out."""
    records = [record for record in records if len(record["exterior_node_tokens"]) > 2]
    exteriors = _build_chains([record["exterior_node_tokens"] for record in records], nodes, xy, shapely.linearrings)
    holes = [
        (i, hole["node_tokens"])
        for i, record in enumerate(records)
        for hole in record["holes"]
        if len(hole["node_tokens"]) > 2
    ]
    areas = shapely.polygons(exteriors)
    rings = _build_chains([tokens for _, tokens in holes], nodes, xy, shapely.linearrings)
    owners = np.array([i for i, _ in holes], dtype=np.int64)
    for i in np.unique(owners):
        areas[i] = shapely.polygons(exteriors[i], rings[owners == i])
    return areas


def _build_chains(
    chains: list[list[str]], nodes: Mapping[str, int], xy: Floats, make: Callable[..., Objects]
) -> Objects:
    """Build a ring or line through the nodes of each chain of tokens."""
    if not chains:
        return np.empty(0, dtype=object)
    rows = np.fromiter((nodes[token] for chain in chains for token in chain), dtype=np.int64)
    owner = np.repeat(np.arange(len(chains)), [len(chain) for chain in chains])
    return np.asarray(make(xy[rows], indices=owner), dtype=object)


POLYGON, LINE = 3, 1  # shapely's type numbers


class MapShapes:
    """All shapes `[n]` of a city in global metres with a spatial index, layer by layer in the order of the map.

    `layer` `[n]` is the number of each shape's layer in LAYERS.
    """

    def __init__(self, by_layer: Mapping[str, Objects]) -> None:
        self.shapes = np.concatenate([np.asarray(by_layer[name], dtype=object) for name in LAYERS])
        self.layer = np.repeat(np.arange(len(LAYERS)), [len(by_layer[name]) for name in LAYERS])
        self._tree = shapely.STRtree(self.shapes)

    def find_near(self, low: Floats, high: Floats) -> Ints:
        """Find the shapes whose bounding boxes touch the box from `low` to `high`, each `[2]`; positions, in order."""
        return np.sort(self._tree.query(shapely.box(*low, *high)))


def split_parts(shapes: Objects, kind: int | Ints) -> tuple[Objects, Ints]:
    """Split shapes into simple polygons or lines, and return these and the position in `shapes` that each is from.

    `kind` is POLYGON or LINE, for all shapes or for each.
    """
    parts, index = shapes, np.arange(len(shapes))
    kinds = shapely.get_type_id(parts)
    while (kinds > POLYGON).any():  # a collection may hold multi-polygons
        parts, again = shapely.get_parts(parts, return_index=True)
        index, kinds = index[again], shapely.get_type_id(parts)
    keep = (kinds == (kind if isinstance(kind, int) else kind[index])) & ~shapely.is_empty(parts)
    return parts[keep], index[keep]


def polygon_rings(polygons: Objects) -> tuple[Objects, Ints, Flags]:
    """Return the rings of simple polygons, the position in `polygons` of each, and whether it is a hole."""
    if not shapely.get_num_interior_rings(polygons).any():  # this is much faster than get_rings
        count = len(polygons)
        return shapely.get_exterior_ring(polygons), np.arange(count), np.zeros(count, dtype=bool)
    rings, owner = shapely.get_rings(polygons, return_index=True)
    return rings, owner, np.append(False, owner[1:] == owner[:-1])


def split(values: NDArray[Any], owner: Ints, count: int) -> list[NDArray[Any]]:
    """Split `values` into `count` consecutive pieces; `owner` is the sorted piece number of each value."""
    ends = np.searchsorted(owner, np.arange(count + 1)).tolist()
    return [values[start:end] for start, end in pairwise(ends)]
