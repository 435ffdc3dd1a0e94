"""What a person looks at after a replay: a page, or a film."""

from __future__ import annotations

from pathlib import Path

from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_core.utils.outputs import check_output, replace_when_done
from bridgeta_ros.bags.report.film import write_film
from bridgeta_ros.bags.report.moments import read_moments
from bridgeta_ros.bags.report.page import format_page

_FILM = ".mp4"
_MOST = {".html": 60, ".htm": 60, _FILM: 1200}  # sets by kind; each takes some 400 kB of memory
_WIDTH = 480  # pixels of a camera's image


def write_report(
    replayed: Path, source: Path, out: Path, *, max_frames: int | None = None, progress: bool = True
) -> None:
    """Write the page (.html) or the film (.mp4) `out` of the bag `replayed` that was made of the bag `source`.

    It shows at most `max_frames` sets, evenly spread, by default 60 on a page and 1200 in a film; a page's latencies
    and tables cover all. Raises BridgeTAError when one of the bags is missing, when they do not belong together, and
    when `out` is neither a page nor a film.
    """
    kind = Path(out).suffix.lower()
    if kind not in _MOST:
        fix = "Let its name end in .html, for a page, or .mp4, for a film"
        raise BridgeTAError("is no report that can be written", where=out, fix=fix, exit_code=2)
    check_output(Path(out))
    replay = read_moments(Path(replayed), Path(source), max_frames or _MOST[kind], _WIDTH, progress=progress)
    with replace_when_done(Path(out)) as temporary:
        if kind == _FILM:
            write_film(replay, temporary, progress=progress)
        else:
            temporary.write_text(format_page(replay), encoding="utf-8")
