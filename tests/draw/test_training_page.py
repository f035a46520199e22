"""The report page: it stands alone, says what is compared, and draws what is known."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from handloom.draw.training.curves import Curve, heat_map, line_chart, smoothed
from handloom.draw.training.numbers import compared
from handloom.draw.training.page import training_page
from handloom.draw.training.predicted import PREDICTED_COLOUR, TRUE_COLOUR, chosen_points, draw_example
from handloom.draw.training.shown import VariantShown
from handloom.schemas.training import Example

VOID = {"meta", "img", "br", "line", "circle", "path"}
NAN = float("nan")


class Balanced(HTMLParser):
    """Fails on tags that do not close, and keeps every attribute that could fetch something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def example(num: int = 50) -> Example:
    rng = np.random.default_rng(0)
    true = (np.cumsum(rng.normal(0, 2, (8, num, 2)), 0) + rng.uniform(20, 140, (num, 2))).astype(np.float32)
    predicted = true + np.float32(3)
    predicted[:3, 0] = np.nan
    return Example("test:v0:0-1", 0.5, np.full((120, 160, 3), 200, np.uint8), true, predicted, "<grasp> & lift")


def variant(name: str, value: float) -> VariantShown:
    steps = [
        {
            "step": n,
            "epoch": (n - 1) // 5,
            "loss": None if n == 3 else 1 / n,
            "step_s": 0.1,
            "loader_wait_s": 0.01,
            "windows": 8,
        }
        for n in range(1, 11)
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
        "notes": ["The paper's: <b>depth</b>."],
        "numbers": {"l1_mm": 12.5, "nothing": None},
        "figures": {
            "Learned map": {"values": [[1.0, -0.5], [None, 0.0]], "rows": ["arm", "gripper"], "columns": ["a", "b"]}
        },
        "counts": {"too_short": 3},
        "hardware": {"cpu": "a cpu", "gpu": None},
        "versions": {"torch": "2"},
    }
    return VariantShown(name, steps, held_out, [9], 1, 0.034, result, [example()])


def page(*variants: VariantShown) -> str:
    return training_page("arm4r", variants, {"stage": "human", "lr": 5e-4, "resources": {"workers": 2}}, 1)


def test_page_is_whole_and_needs_nothing_else():
    text = page(variant("pre-trained", 1.7), variant("scratch", 1.9))
    reader = Balanced()
    reader.feed(text)
    assert reader.open == []
    assert reader.links
    assert all(link.startswith("data:image/jpeg;base64,") for link in reader.links)
    assert "<script" not in text
    assert not re.search(r"https?://", text)
    assert "prefers-color-scheme: dark" in text


def test_page_says_what_it_knows():
    text = page(variant("pre-trained", 1.7), variant("scratch", 1.9))
    assert "l1 is 1.5: <b>25.0% below</b> the better baseline, zero_motion, which is 2" in text  # 1.5 beside 2 and 3
    assert "l1_moving</th><td>1.68 <span class='better'>-52.0%</span></td><td>1.88 <span" in text  # both variants
    assert "pre-trained is 11.8% below scratch (one run of each).</p>" in text
    assert "7, 9" in text  # versions of the table
    assert "3.4%" in text  # the loader's share
    assert "steps without a valid element</th><td class='text'>1<" in text
    assert "training too short</th><td class='text'>3<" in text
    assert "&lt;b&gt;depth&lt;/b&gt;" in text
    assert "&lt;grasp&gt; &amp; lift" in text
    assert "resources.workers" in text
    headings = re.findall(r"<h3>(.*?)</h3>", text)
    assert headings == [
        "l1",
        "moving",
        "share_seen",
        "Loss",
        "Seconds a step",
    ]  # `unknown` never changes: it is in the table alone
    assert text.count("class='level ") >= 4


def test_page_says_where_a_run_is_no_better_than_another():
    text = page(variant("retrieval", 1.9), variant("without", 1.7), variant("scratch", 2.1))
    expected = "retrieval is 13.3% above without, 10.5% below scratch (one run of each)."
    assert f"{expected} It does not help here beside without.</p>" in text
    assert "one run of each" not in page(variant("alone", 1.7))


def test_a_job_without_held_out_windows_has_a_page():
    why = "no video is held out: all windows are of one video"
    line = {"numbers": {}, "windows": 0, "epoch": 0, "at_s": 1.0, "version": 1, "why_none": why}
    bare = VariantShown("asked", [], [line], [], 0, None, {}, [])
    text = page(bare)
    assert f"No held-out windows: {why}." in text
    assert "Copies of one video under several names are not told apart" in text
    assert "no number is known" in text


def test_compared_takes_the_better_baseline_of_each_part():
    numbers = {"error": 1.0, "zero_motion": 2.0, "constant_velocity": 1.5, "zero_motion_hands": 3.0, "error_hands": 4.0}
    found = compared(numbers)
    assert [(c.part, c.name, c.value) for c in found] == [("", "error", 1.0), ("_hands", "error_hands", 4.0)]
    assert [c.change for c in found] == pytest.approx([-1 / 3, 1 / 3])
    assert compared({"zero_motion": 1.0, "l1": None}) == []


def points(svg: str) -> list[tuple[float, float]]:
    path = re.search(r"<path class='line c0' d='([^']*)'", svg)[1]
    return [tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([\d.]+ [\d.]+)", path)]


def test_chart_maps_numbers_in_order_and_leaves_gaps():
    svg = line_chart([Curve("loss", [0, 1, 2, 3, 4], [4.0, 3.0, None, NAN, 1.0])], "steps", "loss")
    found = points(svg)
    assert len(found) == 3
    assert found[0][0] < found[1][0] < found[2][0]
    assert found[0][1] < found[1][1] < found[2][1]  # downwards on the page
    assert svg.count("M") >= 2
    assert "(log)" not in svg
    assert "(log)" in line_chart([Curve("loss", [0, 1], [1e-3, 10.0])], "steps", "loss")


@pytest.mark.parametrize("values", [[5.0], [0.0, 0.0], [-1.0, -1.0, -1.0], [1e-9, 2e-9], [1e12]])
def test_charts_of_few_or_equal_values_are_finite(values):
    svg = line_chart([Curve("x", list(range(len(values))), values)], "steps", "x")
    assert "nan" not in svg
    assert "inf" not in svg
    assert all(0 <= y <= 300 for _, y in points(svg))


def test_long_curves_are_thinned_and_keep_their_end():
    svg = line_chart([Curve("x", list(range(50_000)), [float(n) for n in range(50_000)])], "steps", "x")
    assert len(svg) < 60_000
    assert points(svg)[-1][0] == pytest.approx(624, abs=0.2)


def test_smoothing_skips_what_is_unknown():
    assert smoothed([None, 1.0, NAN, 3.0, 5.0], 2) == [None, 1.0, 1.0, 2.0, 4.0]


def test_heat_map_marks_sign_size_and_the_unknown():
    html = heat_map([[2.0, -1.0], [None, 0.0]], ["<a>", "b"], ["c", "d"])
    assert "class='plus strong' style='--share:1.000'>2.00" in html
    assert "class='minus' style='--share:0.500'>-1.00" in html
    assert "class='unknown'" in html
    assert "&lt;a&gt;" in html


def test_example_shows_both_ways_over_the_frame():
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
