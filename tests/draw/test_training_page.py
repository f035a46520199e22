"""The report page: it stands alone, says what is compared, and draws what is known."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from urllib.request import urlopen
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image
from support.chromium import measured_in_chromium

from handloom.draw.training.curves import Chart, Curve, smoothed
from handloom.draw.training.numbers import compared, held_out_charts, step_charts
from handloom.draw.training.page import training_page
from handloom.draw.training.predicted import PREDICTED_COLOUR, TRUE_COLOUR, chosen_points, draw_example
from handloom.draw.training.shown import VariantShown
from handloom.schemas.training import Example

VOID = {"meta", "img", "br"}
NAN = float("nan")


class Page(HTMLParser):
    """Sections by heading: their text and table rows. Fails on tags that do not close; keeps what could be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.sections: dict[str, str] = {"": ""}
        self.rows: dict[str, list[str]] = {}
        self.num_charts = 0
        self._row: list[str] | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        self.links += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]
        self.num_charts += tag == "svg"
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h1", "h2"):
            self.sections["next"] = ""
        if tag == "tr":
            self._row = []
        if tag in ("th", "td"):
            self._row.append("")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag
        if tag in ("h1", "h2"):
            self.sections[self.sections.pop("next").strip()] = ""
        if tag == "tr":
            self.rows[self._row[0]] = self._row[1:]

    def handle_data(self, data):
        if not {"style", "svg"} & set(self.open):
            section = list(self.sections)[-1]
            self.sections[section] = f"{self.sections[section]} {' '.join(data.split())}".strip()
        if self.open and {"th", "td"} & set(self.open):
            self._row[-1] = f"{self._row[-1]} {data.strip()}".strip()


def example(num: int = 50) -> Example:
    rng = np.random.default_rng(0)
    true = (np.cumsum(rng.normal(0, 2, (8, num, 2)), 0) + rng.uniform(20, 140, (num, 2))).astype(np.float32)
    predicted = true + np.float32(3)
    predicted[:3, 0] = np.nan
    return Example("test:v0:0-1", 0.5, np.full((120, 160, 3), 200, np.uint8), true, predicted, "<grasp> & lift")


def variant(name: str, value: float, num_steps: int = 10) -> VariantShown:
    steps = [
        {
            "step": n,
            "epoch": (n - 1) // 5,
            "loss": None if n == 3 else 1 / n,
            "step_s": 0.1,
            "loader_wait_s": 0.01,
            "windows": 8,
        }
        for n in range(1, num_steps + 1)
    ]
    base = {"zero_motion": 2.0, "constant_velocity": 3.0, "zero_motion_moving": 4.0, "constant_velocity_moving": 3.5}
    held_out = [
        {"epoch": epoch, "step": 5 * epoch, "version": 7, "windows": 16, "at_s": 0.5, "counts": {"l1": 1000.0}}
        | {
            "numbers": {
                "l1": value - 0.1 * epoch,
                "l1_moving": value - 0.01 * epoch,
                "share_seen": 0.1 * epoch,
                "unknown": 0.25,
                **base,
            }
        }
        for epoch in range(3)
    ]
    result = {
        "notes": ["The paper's: <b>depth</b> as `depth_m`."],
        "numbers": {"l1_mm": 12.5, "nothing": None},
        "figures": {
            "Learned map": {"values": [[2.0, -1.0], [None, 0.0]], "rows": ["arm", "<g>"], "columns": ["a", "b"]}
        },
        "counts": {"too_short": 3},
        "hardware": {"cpu": "a cpu", "gpu": None},
        "versions": {"torch": "2"},
    }
    return VariantShown(name, steps, held_out, [9], 1, 0.034, result, [example()])


def html_of(*variants: VariantShown) -> str:
    return training_page("arm4r", variants, {"stage": "human", "lr": 5e-4, "resources": {"workers": 2}}, 1)


def test_page_needs_nothing_else():
    text = html_of(variant("pre-trained", 1.7), variant("scratch", 1.9))
    page = Page(text)
    assert page.num_charts == 5
    assert len(page.links) == 2
    for link in page.links:
        assert link.startswith("data:image/jpeg;base64,")
        with urlopen(link) as data:
            assert Image.open(io.BytesIO(data.read())).size == (560, 420)
    assert not re.search(r"@import|url\((?!#)", text)
    assert text == html_of(variant("pre-trained", 1.7), variant("scratch", 1.9))


def test_page_says_what_it_knows():
    page = Page(html_of(variant("pre-trained", 1.7), variant("scratch", 1.9)))
    assert list(page.sections) == [
        "",
        "arm4r, human",
        "Held-out windows, epoch by epoch",
        "Training, step by step",
        "Predicted and true, held out: pre-trained",
        "Learned map: pre-trained",
        "Learned map: scratch",
        "What is the paper's and what is ours",
        "Data and machine",
    ]
    top = page.sections["arm4r, human"]
    assert "l1 is 1.5: 25.0% below the better baseline, zero_motion, which is 2" in top  # 1.5 beside 2 and 3
    assert "pre-trained is 11.8% below scratch (one run of each)." in top
    assert "7, 9 table version" in top
    assert "3.4% of a step waiting for the loader" in top
    assert page.rows["held out"] == ["pre-trained", "scratch", "zero_motion", "constant_velocity"]
    assert page.rows["l1_moving"] == ["1.68 -52.0%", "1.88 -46.3%", "4", "3.5"]  # below 3.5, the better of the two
    assert page.rows["unknown"] == ["0.25", "0.25"]
    assert page.rows["l1_mm"] == ["12.5", "12.5"]
    assert page.rows["nothing"] == ["–", "–"]
    assert page.rows["steps without a valid element"] == ["1", "1"]
    assert page.rows["training too short"] == ["3", "3"]
    assert page.rows["resources.workers"] == ["2"]
    assert page.rows["arm"] == ["2.00", "-1.00"]
    assert page.rows["<g>"] == ["", "0.00"]
    assert "test:v0:0-1, 0.50 s. <grasp> & lift" in page.sections["Predicted and true, held out: pre-trained"]
    assert page.sections["What is the paper's and what is ours"] == "The paper's: <b>depth</b> as depth_m ."


def test_charts_are_of_what_changes():
    variants = [variant("pre-trained", 1.7), variant("scratch", 1.9)]
    charts = {chart.title: chart for chart in [*held_out_charts(variants), *step_charts(variants)]}
    assert list(charts) == ["l1", "moving", "share_seen", "Loss", "Seconds a step"]  # `unknown` stays as it is
    names = ["pre-trained: l1", "scratch: l1", "zero_motion", "constant_velocity"]
    assert [curve.name for curve in charts["l1"].legend()] == names
    np.testing.assert_allclose(drawn(charts["l1"])["scratch: l1"], [(0, 1.9), (1, 1.8), (2, 1.7)], atol=1e-3)
    np.testing.assert_allclose(drawn(charts["l1"])["zero_motion"], [(0, 2.0), (2, 2.0)], atol=1e-3)
    loss = [(n, 1 / n) for n in range(1, 11) if n != 3]
    np.testing.assert_allclose(drawn(charts["Loss"])["scratch"], loss, atol=0.02)
    smooth = step_charts([variant("alone", 1.7, num_steps=60)])[0]
    assert [curve.name for curve in smooth.legend()] == ["alone, mean of 3 steps"]
    assert set(drawn(smooth)) == {"alone", "alone, mean of 3 steps"}


def test_page_says_where_a_run_is_no_better_than_another():
    clips = variant("random clips", 1.905)  # 0.2 % more: no gain that one run can show
    page = Page(html_of(variant("retrieval", 1.9), variant("without", 1.7), variant("scratch", 2.1), clips))
    expected = "retrieval is 13.3% above without, 10.5% below scratch, 0.3% below random clips (one run of each)."
    assert f"{expected} Here it is no better than without and random clips." in page.sections["arm4r, human"]
    assert "one run of each" not in html_of(variant("alone", 1.7))


def test_a_job_without_held_out_windows_has_a_page():
    why = "no video is held out: all windows are of one video"
    line = {"numbers": {}, "windows": 0, "epoch": 0, "at_s": 1.0, "version": 1, "why_none": why}
    page = Page(html_of(VariantShown("asked", [], [line], [], 0, None, {}, [])))
    held_out = page.sections["Held-out windows, epoch by epoch"]
    assert f"No held-out windows: {why}." in held_out
    assert "Copies of one video under several names are not recognised" in held_out
    assert page.sections["Training, step by step"].count("no number is known") == 2


def test_a_baseline_of_zero_has_no_percentage():
    still = variant("still", 1.7)
    still.held_out[-1]["numbers"]["zero_motion"] = 0.0
    page = Page(html_of(still))
    assert "l1 is 1.5: the better baseline, zero_motion, is 0." in page.sections["arm4r, human"]
    assert page.rows["l1"][0] == "1.5"


def test_compared_takes_the_better_baseline_of_each_part():
    numbers = {"error": 1.0, "zero_motion": 2.0, "constant_velocity": 1.5, "zero_motion_hands": 3.0, "error_hands": 4.0}
    found = compared(numbers)
    assert [(c.part, c.name, c.value) for c in found] == [("", "error", 1.0), ("_hands", "error_hands", 4.0)]
    assert [c.change for c in found] == pytest.approx([-1 / 3, 1 / 3])
    assert compared({"zero_motion": 1.0, "l1": None}) == []


def drawn(chart: Chart) -> dict[str, list[tuple[float, float]]]:
    """`{curve: [(x, y) of its points]}`, read from the picture by its ticks: what a reader takes from it."""
    root = ElementTree.fromstring(chart.svg())
    ticks = {"middle": [], "end": []}  # along x, along y
    for text in root.iter("text"):
        anchor = re.search("text-anchor: (middle|end)", text.get("style"))[1]
        if re.fullmatch(r"-?[\d.]+(e[-+]\d+)?", text.text):
            ticks[anchor].append((float(text.text), float(text.get("x" if anchor == "middle" else "y"))))
    scale_x = np.polyfit([px for _, px in ticks["middle"]], [value for value, _ in ticks["middle"]], 1)
    scale_y = np.polyfit([px for _, px in ticks["end"]], [value for value, _ in ticks["end"]], 1)
    height = ticks["end"][0][1] - float(
        re.search(r"M \S+ (\S+)", next(grid_lines(root)))[1]
    )  # of a label below its line
    return {
        group.find("title").text: [
            (np.polyval(scale_x, x), np.polyval(scale_y, y + height)) for x, y in points(group.find("path").get("d"))
        ]
        for group in root.iter("g")
        if group.find("title") is not None
    }


def grid_lines(root: ElementTree.Element):
    return (path.get("d") for path in root.iter("path") if "var(--line)" in path.get("style", ""))


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)]


def test_a_curve_has_gaps_where_a_value_is_unknown():
    chart = Chart("loss", [Curve("loss", [0, 1, 2, 3, 4], [4.0, 3.0, None, NAN, 1.0])], "steps", "loss")
    np.testing.assert_allclose(drawn(chart)["loss"], [(0, 4.0), (1, 3.0), (4, 1.0)], atol=1e-3)
    assert chart.svg().count("(log)") == 0
    (path,) = [
        g.find("path").get("d") for g in ElementTree.fromstring(chart.svg()).iter("g") if g.find("title") is not None
    ]
    assert re.findall("[ML]", path) == ["M", "L", "M"]


def test_a_chart_does_not_follow_the_users_matplotlibrc():
    chart = Chart("loss", [Curve("loss", [0, 1], [4.0, 3.0])], "steps", "loss")
    plain = chart.svg()
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "text.usetex": True, "svg.fonttype": "path"}):
        assert chart.svg() == plain


def test_an_axis_is_logarithmic_where_values_span_two_decades():
    assert "loss (log)" in Chart("loss", [Curve("loss", [0, 1], [1e-3, 10.0])], "steps", "loss").svg()
    assert "(log)" not in Chart("loss", [Curve("loss", [0, 1], [0.0, 10.0])], "steps", "loss").svg()


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [-1.0, -1.0, -1.0], [1e-9, 2e-9], [1e12]])
def test_charts_of_few_or_equal_values_are_drawn(values):
    chart = Chart("x", [Curve("<x>", list(range(len(values))), values)], "steps", "x")
    root = ElementTree.fromstring(chart.svg())
    (group,) = [group for group in root.iter("g") if group.find("title") is not None]
    assert group.find("title").text == "<x>"
    assert len(points(group.find("path").get("d"))) == len(values)
    assert all(0 <= y <= 290 for _, y in points(group.find("path").get("d")))
    assert (group.find(".//use") is not None) == (len(values) == 1)  # a line through one point would not be seen


@pytest.mark.filterwarnings("error")
def test_charts_of_absurd_values_and_names_are_drawn():
    """Differences and ratios that overflow, and labels that matplotlib reads as TeX or XML cannot hold, had raised."""
    absurd = [1e308, -1e308, 5e-324, 1e300, 10**400, float("inf"), 2.0, 1.0]
    for style in ("line", "level"):
        name = "$\\foo$ \0\x1b<&"
        root = ElementTree.fromstring(Chart("x", [Curve(name[:6], range(8), absurd, style=style)], "$x", name).svg())
        assert root.attrib["aria-label"] == "$\\foo$ <& by $x: $\\foo$"
        assert "$\\foo$ <&" in {text.text for text in root.iter("text")}


def test_a_chart_without_values_is_empty():
    chart = Chart("x", [Curve("x", [0, 1], [None, NAN])], "steps", "x")
    assert chart.curves == []
    assert chart.svg() == ""


def test_long_curves_are_thinned_and_keep_their_end():
    chart = Chart("x", [Curve("x", list(range(50_001)), [float(n % 7) for n in range(50_001)])], "steps", "x")
    assert len(chart.svg()) < 60_000
    assert drawn(chart)["x"][-1] == pytest.approx((50_000, 50_000 % 7), abs=0.1)


def test_smoothing_skips_what_is_unknown():
    assert smoothed([None, 1.0, NAN, 3.0, 5.0], 2) == [None, 1.0, 1.0, 2.0, 4.0]


MEASURE = """(document, window) => {
  const rect = element => { const r = element.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  const style = (element, name) => window.getComputedStyle(element)[name];
  document.querySelectorAll("details").forEach(element => { element.open = true; });
  return {
    text: document.body.innerText,
    width: document.documentElement.scrollWidth,
    fetched: window.performance.getEntriesByType("resource").map(entry => entry.name),
    images: [...document.images].map(image => image.naturalWidth),
    background: style(document.body, "backgroundColor"),
    colour: style(document.body, "color"),
    charts: [...document.querySelectorAll(".panel:has(svg)")].map(panel => ({
      panel: rect(panel),
      svg: rect(panel.querySelector("svg")),
      texts: [...panel.querySelectorAll("svg text")].map(rect),
      curves: Object.fromEntries([...panel.querySelectorAll("svg title")].map(
        title => [title.textContent, style(title.parentElement.querySelector("path"), "stroke")])),
      legend: Object.fromEntries([...panel.querySelectorAll(".legend li")].map(
        item => [item.textContent, style(item.querySelector("i"), "borderTopColor")])),
    })),
  };
}"""


def test_page_in_chromium(tmp_path):
    text = html_of(variant("pre-trained", 1.7, 60), variant("without the skip path", 1.9, 60))
    wide, narrow = measured_in_chromium(text, MEASURE, [1280, 390], tmp_path)
    (dark,) = measured_in_chromium(text, MEASURE, [1280], tmp_path, dark=True)
    for found, width in ((wide, 1280), (narrow, 390), (dark, 1280)):
        assert found["width"] == width, "the page scrolls sideways"
        assert found["fetched"] == []
        assert found["images"] == [560, 560]
        assert "On held-out windows l1 is 1.5: 25.0% below the better baseline, zero_motion" in found["text"]
        assert contrast(found["colour"], found["background"]) > 7
        assert len(found["charts"]) == 5
        for chart in found["charts"]:
            assert is_inside(chart["svg"], chart["panel"])
            assert all(is_inside(text, chart["svg"]) for text in chart["texts"])
            assert not [(a, b) for n, a in enumerate(chart["texts"]) for b in chart["texts"][:n] if overlap(a, b)]
            assert chart["legend"].items() <= chart["curves"].items()  # the legend shows the colour of its curve
            assert len(set(chart["legend"].values())) == len(chart["legend"])
            assert all(contrast(colour, found["background"]) > 3 for colour in chart["curves"].values())


def is_inside(inner: list[float], outer: list[float]) -> bool:
    return all(a >= b - 1 for a, b in zip(inner[:2], outer[:2], strict=True)) and all(
        a <= b + 1 for a, b in zip(inner[2:], outer[2:], strict=True)
    )


def overlap(a: list[float], b: list[float]) -> bool:
    return min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 1


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours `rgb(r, g, b)`, 1 to 21."""
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = np.array([float(value) for value in re.findall(r"[\d.]+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_example_shows_both_paths_over_the_frame():
    shown = draw_example(example(), 320)
    assert shown.shape == (240, 320, 3)
    for colour in (TRUE_COLOUR, PREDICTED_COLOUR):
        near = np.abs(shown.astype(int) - colour).sum(-1) < 60
        assert near.sum() > 100
    still = Example("c", 0.0, np.zeros((50, 50, 3), np.uint8), *[np.full((4, 3, 2), np.nan, np.float32)] * 2)
    assert len(np.unique(draw_example(still, 100).reshape(-1, 3), axis=0)) == 1  # nothing known, nothing drawn


def test_points_that_move_are_chosen():
    true = np.zeros((5, 2000, 2), np.float32)
    true[:, 1234] += np.arange(5, dtype=np.float32)[:, None] * 10
    chosen = chosen_points(true, true)
    assert 1234 in chosen
    assert len(chosen) == len(set(chosen.tolist())) <= 150
