"""The report is one file that shows what the bags hold."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_fakes import GRID, MS, START, FakeRuntime, jpeg, write_bag

from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.geometry.grid import BevGrid
from bridgeta_core.utils.errors import BridgeTAError
from bridgeta_ros.bags.io import create_bag, open_bag
from bridgeta_ros.bags.replay import replay
from bridgeta_ros.bags.report import write_report
from bridgeta_ros.bags.report.latency_chart import draw_latencies
from bridgeta_ros.bags.report.moments import _Truths


class Page(HTMLParser):
    """The parts of a page: tags with their attributes, and the text inside each kind of tag."""

    VOID = ("meta", "input", "img", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []
        (script,) = (t for t, a in zip(self.texts["script"], self.with_tag("script"), strict=True) if a.get("id"))
        self.data = json.loads(script)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def with_tag(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def picture(url: str) -> np.ndarray:
    data = base64.b64decode(url.partition(",")[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def truth_at_the_left_front() -> np.ndarray:
    truth = np.zeros((6, *GRID.shape), np.int8)
    truth[2] = -1
    column, row = np.floor(GRID.to_cells(np.array((9.5, 7.5)))).astype(int)
    truth[5, row, column] = 100
    return truth


def brightness(cycle: int, name: str) -> bytes:
    return jpeg(20 * cycle + (100 if name == "cam_front" else 10))


def make(folder: Path, cycles: int = 6, max_frames: int = 60, **options) -> Page:
    write_bag(folder / "in", cycles, **options)
    replay(folder / "in", folder / "out", FakeRuntime(), progress=False)
    write_report(folder / "out", folder / "in", folder / "report.html", max_frames=max_frames, progress=False)
    return Page(folder / "report.html")


def test_nothing_in_the_page_is_fetched_from_elsewhere(tmp_path):
    page = make(tmp_path, 2, truth=truth_at_the_left_front())
    text = (tmp_path / "report.html").read_text()
    assert "http" not in text.replace("http-equiv", "")
    assert not page.with_tag("link")
    assert not [a for a in page.with_tag("script") if "src" in a]
    assert "@import" not in text
    assert "url(" not in text
    assert "$" not in re.sub(r"\$\{[^}]*\}", "", text)  # no placeholder is left but the scripts' own


def test_each_set_shows_its_cameras_and_grids_with_ahead_at_the_top(tmp_path):
    data = make(tmp_path, image=brightness, truth=truth_at_the_left_front()).data
    assert [frame["time"] for frame in data["frames"]] == pytest.approx([0.083 * i for i in range(6)])
    for cycle, frame in enumerate(data["frames"]):
        front, back = (picture(url) for url in frame["images"])
        assert front.shape == (270, 480, 3)
        assert abs(front.mean() - (20 * cycle + 100)) < 3
        assert abs(back.mean() - (20 * cycle + 10)) < 3
        first = picture(frame["prediction"][0])
        assert first.shape == (20, 16, 3)
        seen = first[..., 0] > 0
        expected = 1 + round((20 * cycle + 100) / 2.55 / 5)
        assert np.abs(first[..., 0][seen].astype(int) - expected).max() <= 1
        truth = picture(data["truths"][frame["truth"]][1])
        assert truth[0, 0, CLASS_NAMES.index("divider") - 3] == 21
        assert (truth[..., 2] == 21).sum() == 1
        assert (picture(data["truths"][frame["truth"]][0])[..., 2] == 0).all()  # walkway is unknown
        assert frame["age"] == 0


def test_a_set_between_keyframes_shows_the_last_truth_and_its_age(tmp_path):
    write_bag(tmp_path / "in", 4, truth=truth_at_the_left_front())
    with open_bag(tmp_path / "in") as bag, create_bag(tmp_path / "less") as (out, _):
        for topic, kind in bag.topics.items():
            out.add_topic(topic, kind)
        for connection, time, data in bag.raw(set(bag.topics)):
            if "truth" not in connection.topic or time == START + 83 * MS:
                out.write_raw(connection.topic, time, data)
    replay(tmp_path / "less", tmp_path / "out", FakeRuntime(), progress=False)
    write_report(tmp_path / "out", tmp_path / "less", tmp_path / "r.html", progress=False)
    frames = Page(tmp_path / "r.html").data["frames"]
    assert [frame["truth"] for frame in frames] == [None, 0, 0, 0]
    assert [frame["age"] for frame in frames[1:]] == pytest.approx([0, 0.083, 0.166])


def test_without_ground_truth_there_is_one_view(tmp_path):
    page = make(tmp_path, 2)
    assert [a["id"] for a in page.with_tag("canvas")] == ["prediction"]
    assert page.data["truths"] == []
    assert not any("IoU" in text for text in page.texts.get("caption", []))


def test_long_replays_are_thinned_evenly_and_tables_count_everything(tmp_path):
    page = make(tmp_path, 20, max_frames=5)
    assert [round(frame["time"] / 0.083) for frame in page.data["frames"]] == [0, 5, 10, 14, 19]
    assert any("5 of 20 sets" in text for text in page.texts["p"])
    assert any("20 used, 0 incomplete" in text for text in page.texts["p"])


def test_tables_are_those_of_the_summary(tmp_path):
    page = make(tmp_path, truth=truth_at_the_left_front())
    summary = json.loads((tmp_path / "out" / "replay.json").read_text())
    cells = page.texts["td"]
    for stage, row in summary["stages_ms"].items():
        place = cells.index(stage)
        assert cells[place + 1 : place + 3] == [f"{row['median']:.1f}", f"{row['p99']:.1f}"]
    assert cells[cells.index("walkway") + 1] == "-"
    assert any("6 ground-truth keyframes" in text for text in page.texts["caption"])


def test_images_and_controls_have_accessible_names(tmp_path):
    page = make(tmp_path, 2)
    assert all(a.get("alt") for a in page.with_tag("img"))
    assert all(a.get("aria-label") for a in page.with_tag("canvas") + page.with_tag("svg"))
    assert dict(page.tags)["html"]["lang"] == "en"


def test_names_from_the_bag_cannot_break_out_of_the_page(tmp_path):
    write_bag(tmp_path / "<img src=x>", 2)
    replay(tmp_path / "<img src=x>", tmp_path / "out", FakeRuntime(), progress=False)
    write_report(tmp_path / "out", tmp_path / "<img src=x>", tmp_path / "r.html", progress=False)
    assert not [a for a in Page(tmp_path / "r.html").with_tag("img") if a.get("src") == "x"]


def test_a_broken_set_is_left_out(tmp_path):
    bad = lambda c, n: b"" if (c, n) == (2, "cam_back") else jpeg(80)  # noqa: E731
    assert len(make(tmp_path, image=bad).data["frames"]) == 5


def test_another_grid_is_drawn_in_its_own_shape(tmp_path):
    grid = BevGrid(0, 30, -10, 10, 0.5)
    write_bag(tmp_path / "in", 2)
    replay(tmp_path / "in", tmp_path / "out", FakeRuntime(grid=grid), progress=False)
    write_report(tmp_path / "out", tmp_path / "in", tmp_path / "r.html", progress=False)
    page = Page(tmp_path / "r.html")
    (canvas,) = page.with_tag("canvas")
    assert int(canvas["height"]) / int(canvas["width"]) == pytest.approx(1.5, abs=0.01)
    assert page.data["grid"]["size"] == [40, 60]
    assert picture(page.data["frames"][0]["prediction"][0]).shape == (60, 40, 3)


def test_bags_that_do_not_belong_together_are_an_error(tmp_path):
    make(tmp_path, 2)
    (tmp_path / "report.html").unlink()
    write_bag(tmp_path / "other", 2, period=70 * MS, image=lambda c, n: jpeg(9) if c else None)
    with pytest.raises(BridgeTAError, match="none of the images"):
        write_report(tmp_path / "out", tmp_path / "other", tmp_path / "report.html", progress=False)
    with pytest.raises(BridgeTAError, match=r"replay\.json.*cannot be read"):
        write_report(tmp_path / "in", tmp_path / "in", tmp_path / "report.html", progress=False)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("count", [1, 2, 159, 160, 161, 1000])
def test_the_chart_stacks_the_stages_to_their_sum(count):
    rng = np.random.default_rng(count)
    latencies = {"decode": rng.uniform(5, 20, count).tolist(), "network": rng.uniform(30, 80, count).tolist()}
    chart = draw_latencies(latencies, [i * 83 * MS for i in range(count)], 83.0)
    ticks = [float(t) for t in re.findall(r'text-anchor="end">([\d.]+)</text>', chart)]
    paths = re.findall(r' d="([^"]+)"', chart)
    bars = [re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)h", path) for path in paths]
    assert len(bars) == 2
    assert len(bars[0]) == len(bars[1]) == min(count, 160)
    top, bottom = ticks[-1], ticks[0]
    assert bottom == 0
    assert 4 <= len(ticks) <= 9
    for first, second in zip(*bars, strict=True):
        assert first[2] == second[1]  # the second stage stands on the first
    if count <= 160:
        ends = np.array([float(bar[2]) for bar in bars[1]])
        floor, ceiling = float(bars[0][0][1]), 12.0
        sums = (floor - ends) / (floor - ceiling) * top
        assert np.allclose(sums, np.sum(list(latencies.values()), axis=0), atol=top / 200)


def test_a_chart_of_nothing_is_empty():
    assert draw_latencies({"decode": []}, [], None) == ""


def test_ground_truths_that_no_frame_shows_are_not_kept():
    truths = _Truths([5_000 * MS, 9_000 * MS])
    for i in range(200):
        for name in CLASS_NAMES:
            truths.add(i * 100 * MS, name, np.zeros(GRID.shape, dtype=np.int8))
        assert len(truths.grids) <= 2
    assert sorted(truths.grids) == [5_000 * MS, 9_000 * MS]
    assert all(len(grids) == 6 for grids in truths.grids.values())


def test_a_report_is_a_page_or_a_film(tmp_path):
    with pytest.raises(BridgeTAError, match=r"report\.pdf: is no report.*\.html.*\.mp4"):
        write_report(tmp_path / "out", tmp_path / "in", tmp_path / "report.pdf", progress=False)
