"""The page in a real browser: Chromium, where it is installed (apt install chromium)."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from bag_fakes import GRID, FakeRuntime, jpeg, write_bag

from bridgeta_core.geometry.classes import CLASS_NAMES
from bridgeta_core.view.bev import ERROR_COLOURS, colour_cells, find_errors
from bridgeta_core.view.drawing import PAPER
from bridgeta_ros.bags.replay import replay
from bridgeta_ros.bags.report import write_report
from bridgeta_ros.bags.report.latency_chart import WIDTH

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
OPTIONS += ["--disable-component-update", "--disable-quic"]
SETS = 6


def draw_blobs(cycle, channel):
    """Draw smooth noise of whole steps of 5 %, another one for every set and class."""
    noise = np.random.default_rng(10 * cycle + channel).random((5, 4)).astype(np.float32)
    values = cv2.resize(noise, GRID.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.round(np.clip(1.6 * values - 0.3, 0, 1) * 20) / 20


class Blobs(FakeRuntime):
    """Predicts the blobs of the set whose brightness it sees."""

    def infer(self, images, rig):
        cycle = round(images.mean() / 30)
        return np.stack([draw_blobs(cycle, c) for c in range(6)]).astype(np.float32)


def truth():
    layers = np.zeros((6, *GRID.shape), np.int8)
    layers[0, :, 4:14] = layers[5, 7, 4:14] = 100
    layers[2, :5] = 100
    layers[4] = -1
    return layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_bag(folder / "in", SETS, image=lambda cycle, name: jpeg(30 * cycle), truth=truth())
    replay(folder / "in", folder / "out", Blobs(), progress=False)
    write_report(folder / "out", folder / "in", folder / "report.html", progress=False)
    return folder


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser, folder):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.problems, page.requests = [], []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto((folder / "report.html").as_uri())
    wait(page, 0)
    yield page
    assert page.problems == []
    page.close()


def wait(page, number):
    page.wait_for_function(f"document.body.dataset.shown === '{number}'")


def read_cells(page, name):
    """Read the colour in the middle of each cell of a canvas, `[X, Y, 3]`."""
    script = """(canvas, [columns, rows]) => {
        const context = canvas.getContext("2d"), colours = [];
        const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
        for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) {
            const v = Math.floor((y + .5) * canvas.height / rows), u = Math.floor((x + .5) * canvas.width / columns);
            colours.push(...pixels.subarray(4 * (v * canvas.width + u), 4 * (v * canvas.width + u) + 3));
        }
        return colours;
    }"""
    columns, rows = GRID.shape
    colours = page.locator(f"#{name}").evaluate(script, [columns, rows])
    return np.array(colours, dtype=np.uint8).reshape(rows, columns, 3)


def away_from_the_vehicle():
    """Cells that neither the vehicle nor a range ring's label covers."""
    x, y = GRID.centres()
    near = (np.abs(x[None]) < 5) & (np.abs(y[:, None]) < 3)
    return ~near.T[::-1, ::-1]


def expected(folder, cycle):
    from bridgeta_ros.bags.report.moments import read_moments

    moment = read_moments(folder / "out", folder / "in", 99, 64, progress=False).moments[cycle]
    return np.maximum(moment.values, 0) / np.float32(100), (moment.values >= 0).all(axis=0)


@pytest.mark.parametrize("cycle", [0, 3])
def test_the_prediction_has_the_same_colours_as_everywhere_else(page, folder, cycle):
    page.locator("#slider").fill(str(cycle))
    wait(page, cycle)
    values, seen = expected(folder, cycle)
    place = away_from_the_vehicle()
    assert np.array_equal(read_cells(page, "prediction")[place], colour_cells(values, [0.5] * 6, seen)[place])


def test_a_threshold_redraws_the_grid_and_its_iou(page, folder):
    walkway = CLASS_NAMES.index("walkway")
    values, seen = expected(folder, 0)
    place, labels = away_from_the_vehicle(), truth()[walkway] > 0
    for threshold in (0.25, 0.7):
        page.get_by_label("threshold of walkway").fill(str(round(100 * threshold)))
        thresholds = [0.5] * 6
        thresholds[walkway] = threshold
        assert np.array_equal(read_cells(page, "prediction")[place], colour_cells(values, thresholds, seen)[place])
        predicted = values[walkway] >= np.float32(threshold)
        iou = (predicted & labels & seen).sum() / ((predicted | labels) & seen).sum()
        cells = page.locator("#classes tbody tr").nth(walkway).locator("td")
        assert float(cells.nth(2).inner_text()) == pytest.approx(100 * iou, abs=0.06)
    page.get_by_role("button", name="thresholds as they were").click()
    assert np.array_equal(read_cells(page, "prediction")[place], colour_cells(values, [0.5] * 6, seen)[place])


def test_what_is_wrong_is_shown(page, folder):
    values, seen = expected(folder, 0)
    known = [name != "carpark_area" for name in CLASS_NAMES]
    errors = find_errors(values, truth() > 0, [0.5] * 6, known)
    colours = np.array([PAPER, *ERROR_COLOURS.values()])[errors].transpose(1, 0, 2)[::-1, ::-1]
    place = away_from_the_vehicle() & seen.T[::-1, ::-1]
    assert len(np.unique(errors)) == 4
    assert np.array_equal(read_cells(page, "errors")[place], colours[place])


def test_a_class_that_is_not_ticked_is_nowhere(page, folder):
    values, seen = expected(folder, 0)
    page.locator("#classes").get_by_label("divider", exact=True).uncheck()
    values[CLASS_NAMES.index("divider")] = 0
    place = away_from_the_vehicle()
    assert np.array_equal(read_cells(page, "prediction")[place], colour_cells(values, [0.5] * 6, seen)[place])


def test_the_worst_moments_are_listed_and_one_click_away(page):
    entries = page.locator("#worst button")
    scores = [float(text.split("IoU ")[1].split(" ")[0]) for text in entries.all_inner_texts()]
    assert len(scores) == 5
    assert scores == sorted(scores)
    entries.first.click()
    page.wait_for_function("document.querySelector('#worst button').getAttribute('aria-current') === 'true'")
    assert float(page.locator("#mean-frame").inner_text()) == scores[0]
    shown = page.evaluate("document.body.dataset.shown")
    page.keyboard.press("w")
    page.wait_for_function(f"document.body.dataset.shown !== '{shown}'")
    assert float(page.locator("#mean-frame").inner_text()) == scores[1]


def test_values_are_read_under_the_pointer(page, folder):
    values, seen = expected(folder, 0)
    box = page.locator("#prediction").bounding_box()
    columns, rows = GRID.shape
    row, column = np.argwhere(seen & (values[0] >= 0.1))[0]
    x = box["x"] + (columns - row - 0.5) * box["width"] / columns
    y = box["y"] + (rows - column - 0.5) * box["height"] / rows
    page.mouse.move(x, y)
    text = page.locator("#pointer").inner_text()
    centre_x, centre_y = GRID.x_min + column + 0.5, GRID.y_min + row + 0.5
    where = f"{abs(centre_x):.1f} m {'behind' if centre_x < 0 else 'ahead'}, {abs(centre_y):.1f} m to the "
    assert text.startswith(where)
    assert f"drivable area {round(100 * values[0, row, column])} %" in text
    assert "Truth: " in text


def test_a_click_into_the_latencies_goes_there(page):
    line = page.locator("#now")
    chart = page.locator("#chart svg")
    box = chart.bounding_box()
    left, width = (float(line.get_attribute(f"data-{name}")) for name in ("left", "width"))
    x = (left + width * 4.4 / SETS) * box["width"] / WIDTH
    chart.click(position={"x": x, "y": 0.5 * box["height"]})
    wait(page, 4)
    assert float(line.get_attribute("x1")) == pytest.approx(left + width * 4.5 / SETS, abs=0.5)


def test_keys_step_play_and_draw_the_truth(page):
    for key, number in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", SETS - 1), ("Home", 0)):
        page.keyboard.press(key)
        wait(page, number)
    before = read_cells(page, "prediction")
    page.keyboard.press("t")
    assert page.locator("#lines").is_checked()
    lines = page.evaluate("document.getElementById('prediction').toDataURL()")
    page.keyboard.press("t")
    assert page.evaluate("document.getElementById('prediction').toDataURL()") != lines
    assert np.array_equal(read_cells(page, "prediction"), before)
    page.keyboard.press(" ")
    wait(page, 2)
    page.keyboard.press(" ")
    assert page.locator("#play").inner_text() == "Play"


def test_arrows_on_a_threshold_move_it_and_not_the_film(page):
    page.get_by_label("threshold of divider").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("threshold of divider").input_value() == "55"
    assert page.evaluate("document.body.dataset.shown") == "0"


def test_a_camera_enlarges_and_escape_closes_it(page):
    page.locator(".cameras button").first.click()
    dialog = page.locator("#enlarged")
    assert dialog.is_visible()
    small, large = page.locator(".cameras img").first.bounding_box(), dialog.locator("img").bounding_box()
    assert large["width"] > 2 * small["width"] or large["width"] > 1000
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 3840])
def test_nothing_is_cut_off_or_unreadable(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    script = """() => {
        const light = (text) => {
            const linear = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
                .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
            return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2];
        };
        const paper = light(getComputedStyle(document.body).backgroundColor);
        return [...document.querySelectorAll("h1, h2, p, td, th, figcaption")].map((element) => {
            const ink = light(getComputedStyle(element).color);
            return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
        });
    }"""
    assert min(page.evaluate(script)) > 4.5  # WCAG 2.1, AA


def test_nothing_is_asked_for_but_the_page_itself(page, folder):
    page.keyboard.press("End")
    wait(page, SETS - 1)
    page.locator(".cameras button").first.click()
    assert {url for url in page.requests if not url.startswith("data:")} == {(folder / "report.html").as_uri()}
