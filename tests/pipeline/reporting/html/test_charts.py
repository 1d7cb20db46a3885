from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from semires.pipeline.reporting.html.charts import (
    Bar,
    Interval,
    Line,
    bar_chart,
    interval_chart,
    line_chart,
    nice_ticks,
    tone,
)

HOSTILE = '</svg><script>alert("1")</script>&'
WORDS = {"name": "chart", "title": HOSTILE, "description": "rises"}


def parsed(chart: Markup) -> ElementTree.Element:
    """The chart as XML, which it is as well."""
    return ElementTree.fromstring(chart)


def of_class(chart: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [found for found in chart.iter() if name in found.get("class", "").split()]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (41.2, 52.1, [40.0, 42.5, 45.0, 47.5, 50.0, 52.5]),
        (0.451, 0.489, [0.45, 0.46, 0.47, 0.48, 0.49]),
        (-1.5, 3, [-2, -1, 0, 1, 2, 3]),
        (7, 7, [6.4, 6.6, 6.8, 7.0, 7.2, 7.4, 7.6]),
    ],
)
def test_nice_ticks__round_numbers_around_the_values(low: float, high: float, ticks: list[float]) -> None:
    found = nice_ticks(low, high, 5)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) <= 6
    if low != high:
        assert found == pytest.approx(ticks)


def test_tone__comes_again_dashed() -> None:
    assert [tone(number) for number in (0, 9, 10, 20)] == ["tone-0", "tone-9", "tone-0 dashed", "tone-0"]


def test_line_chart__puts_points_where_they_belong() -> None:
    lines = [Line(name=HOSTILE, tone="tone-3", points=((0, 40), (50, 50), (100, 45)))]
    chart = parsed(line_chart(lines, **WORDS, x_label="steps", y_label="oIoU", size=(480, 300)))
    (group,) = of_class(chart, "tone-3")
    (line,) = of_class(group, "line")
    (left, bottom), (middle, top), (right, half) = (
        tuple(map(float, point.split(","))) for point in line.get("points", "").split()
    )
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert half == pytest.approx((bottom + top) / 2, abs=0.1)
    rules = [float(rule.get("y1", "")) for rule in of_class(chart, "rule")]
    assert (max(rules), min(rules)) == (pytest.approx(bottom, abs=0.1), pytest.approx(top, abs=0.1))
    assert 0 < left < right < 480
    assert [found.text for found in group.iter("title")][1] == f"{HOSTILE}, steps 50: 50.00"


def test_line_chart__has_seeds_bands_marks_and_a_shared_range() -> None:
    line = Line(
        name="one",
        tone="tone-0",
        points=((0, 4), (10, 5)),
        seeds=(((0, 3), (10, 5)), ((0, 5), (10, 5))),
        band=((0, 3, 5), (10, 5, 5)),
        is_dashed=True,
    )
    text = line_chart([line], **WORDS, x_label="x", y_label="y", marks=[(5, "mutual")], y_range=(0, 20))
    chart = parsed(text)
    assert len(of_class(chart, "seed")) == 2
    assert len(of_class(chart, "band")) == len(of_class(chart, "mark")) == len(of_class(chart, "dashed")) == 1
    assert {"mutual", "20"} <= {found.text for found in chart.iter("text")}


def test_chart__says_what_it_shows() -> None:
    charts = [
        line_chart([Line(name="a", tone="tone-0", points=((0, 1),))], **WORDS, x_label="x", y_label="y"),
        bar_chart([Bar(name=HOSTILE, shares={"positive": 0.5, "negative": 0.2, "none": 0.3})], **WORDS),
        interval_chart([Interval(name=HOSTILE, tone="tone-0", value=3)], **WORDS, x_label="x"),
    ]
    for text in charts:
        chart = parsed(text)
        assert chart.get("role") == "img"
        said = {found.get("id"): found.text for found in chart}
        assert [said[name] for name in chart.get("aria-labelledby", "").split()] == [HOSTILE, "rises"]
        assert "<script" not in text


def test_bar_chart__bars_are_as_long_as_their_shares() -> None:
    chart = parsed(bar_chart([Bar(name="a", shares={"positive": 0.5, "negative": 0.25, "none": 0.25})], **WORDS))
    bars = [(bar.get("class"), float(bar.get("x", "")), float(bar.get("width", ""))) for bar in chart.iter("rect")]
    assert bars == [("positive", 0.0, 240.0), ("negative", 240.0, 120.0), ("none", 360.0, 120.0)]


def test_interval_chart__shows_zero_and_the_published() -> None:
    rows = [Interval(name="a", tone="tone-1", value=2, interval=(-1, 4), published=8)]
    chart = parsed(interval_chart(rows, **WORDS, x_label="points", has_zero=True))
    (zero,) = of_class(chart, "mark")
    (line,) = of_class(chart, "line")
    (point,) = chart.iter("circle")
    (diamond,) = of_class(chart, "published")
    low, high = (float(line.get(name, "")) for name in ("x1", "x2"))
    assert low < float(zero.get("x1", "")) < float(point.get("cx", "")) < high
    assert float(diamond.get("points", "").split(",")[0]) > high
    assert [found.text for found in diamond.iter("title")] == ["a, published: 8.00"]


def test_charts__a_long_name_takes_several_lines_and_nothing_lies_on_it() -> None:
    name = "SemiRES, CPI-U 0.7 (" + ", ".join(f"setting_{number} 0.{number}" for number in range(8)) + ")"
    bar = Bar(name=name, shares={"positive": 0.5, "negative": 0.2, "none": 0.3})
    bars = parsed(bar_chart([bar, bar], **WORDS, width=340))
    row = Interval(name=name, tone="tone-0", value=3, interval=(2, 4))
    intervals = parsed(interval_chart([row, row], **WORDS, x_label="x", width=340))
    for chart in (bars, intervals):
        texts = of_class(chart, "row")
        assert " ".join(text.text or "" for text in texts) == f"{name} {name}"
        assert all(len(text.text or "") <= 340 / 8 for text in texts)
        assert float(texts[-1].get("y", "")) < float(chart.get("height", ""))
        lines = [float(text.get("y", "")) for text in texts]
        assert lines == sorted(set(lines))
    first = next(bars.iter("rect"))
    below = [float(text.get("y", "")) for text in of_class(bars, "row")]
    half = len(below) // 2
    assert below[half - 1] < float(first.get("y", "")) < below[half] - 12
