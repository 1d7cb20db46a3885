"""Charts as inline SVG: lines over steps, stacked bars, intervals beside what is published.

Colours are classes and variables of charts.css, so that dark mode and print work; every chart has a title and a
description for those who do not see it, every point what it stands for. Text keeps its size: a chart is as wide as its
numbers need, and a page puts charts beside each other.
"""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

Point = tuple[float, float]
NUM_TONES = 10
"""How many colours charts.css tells apart."""
_RIGHT, _TOP = 22, 12  # around the plotting area; left of it and below are numbers and names of the axes
_WIDE = 600  # a chart from this width on has larger letters where a page is narrow (charts.css), and room for them
_BAR, _GAP, _LINE = 16, 12, 16  # heights of a bar, of what is between rows, of a line of text
_LETTER = 8  # width of a letter of a row's name, about


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart, its points in the order of their x. tone: class of its colour, as `tone` has it, or a `Kind`.
    seeds: thin lines behind it. band: (x, low, high) of an area behind it."""

    name: str
    tone: str
    points: tuple[Point, ...]
    seeds: tuple[tuple[Point, ...], ...] = ()
    band: tuple[tuple[float, float, float], ...] = ()
    is_dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A row of a chart of intervals: a measured value, what holds 95% of it, the published value; None where there is
    none."""

    name: str
    tone: str
    value: float
    interval: tuple[float, float] | None = None
    published: float | None = None


Kind = Literal["positive", "negative", "none"]
"""What refinement made of a label: better, worse, or nothing; classes of charts.css too."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of a chart of shares: kind -> its share, of 1 in all."""

    name: str
    shares: dict[Kind, float]


def tone(number: int) -> str:
    """The class of the colour of the nth of several; after the tenth they come again, dashed."""
    return f"tone-{number % NUM_TONES}" + (" dashed" if number // NUM_TONES % 2 else "")


def line_chart(
    lines: Sequence[Line],
    *,
    name: str,
    title: str,
    description: str,
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
    digits: int = 2,
    y_range: tuple[float, float] | None = None,
    size: tuple[int, int] = (480, 300),
) -> Markup:
    """A chart of `lines`. name: of the element, unlike any other on the page. marks: x of upright lines, and what
    begins there. digits: of what a point says. y_range: what is shown at least, so that charts can be compared."""
    width, height = size
    points = [point for line in lines for part in (line.points, *line.seeds) for point in part]
    points += [(x, y) for line in lines for x, low, high in line.band for y in (low, high)]
    x_ticks = nice_ticks(0.0, max(x for x, _ in points), 5)
    heights = [y for _, y in points] + list(y_range or ())
    y_ticks = nice_ticks(min(heights), max(heights), 5)
    left, right = (72 if width >= _WIDE else 56), width - _RIGHT
    bottom = height - (62 if width >= _WIDE else 42)
    x_of = _scale(x_ticks[0], x_ticks[-1], left, right)
    y_of = _scale(y_ticks[0], y_ticks[-1], bottom, _TOP)

    def path(of: Iterable[Point]) -> str:
        return " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in of)

    parts = [_tag("line", "", x1=left, x2=right, y1=y_of(y), y2=y_of(y), class_="rule") for y in y_ticks]
    parts += [_text(left - 6, y_of(y) + 4, _number(y, y_ticks), "end") for y in y_ticks]
    parts += [_text(x_of(x), bottom + (20 if width >= _WIDE else 16), _number(x, x_ticks), "middle") for x in x_ticks]
    parts += [_text((left + right) / 2, height - 6, x_label, "middle", "name"), _upright(y_label, bottom)]
    for x, what in marks:
        parts.append(_tag("line", "", x1=x_of(x), x2=x_of(x), y1=_TOP, y2=bottom, class_="mark"))
        parts.append(_text(x_of(x) + 4, bottom - 6, what, "start", "note"))
    for line in lines:
        inner = []
        if line.band:
            around = [(x, high) for x, _, high in line.band] + [(x, low) for x, low, _ in reversed(line.band)]
            inner.append(_tag("polygon", "", points=path(around), class_="band"))
        inner += [_tag("polyline", "", points=path(seed), class_="seed") for seed in line.seeds]
        inner.append(_tag("polyline", "", points=path(line.points), class_="line"))
        for x, y in line.points:
            said = _tag("title", escape(f"{line.name}, {x_label} {x:,.0f}: {y:.{digits}f}"))
            inner.append(_tag("circle", said, cx=f"{x_of(x):.1f}", cy=f"{y_of(y):.1f}", r=3))
        parts.append(
            _tag(
                "g",
                Markup("").join(inner),
                class_=line.tone + (" dashed" if line.is_dashed else ""),
                data_line=line.name,
            )
        )
    return _svg(parts, width, height, name, title, description)


def bar_chart(bars: Sequence[Bar], *, name: str, title: str, description: str, width: int = 480) -> Markup:
    """Bars of one length below their names, each in parts by share."""
    parts: list[Markup] = []
    top = 0
    for bar in bars:
        named = _row_name(bar.name, top, width)
        parts += named
        top += _LINE * (len(named) - 1)
        left = 0.0
        for kind, share in bar.shares.items():
            wide = share * width
            said = _tag("title", escape(f"{bar.name}: {100 * share:.1f}% {kind}"))
            parts.append(
                _tag("rect", said, x=f"{left:.1f}", y=top + _LINE + 2, width=f"{wide:.1f}", height=_BAR, class_=kind)
            )
            if wide > 44:
                at = top + _LINE + 14
                parts.append(_text(left + wide / 2, at, f"{100 * share:.0f}%", "middle", "inside"))
            left += wide
        top += _LINE + _BAR + _GAP
    return _svg(parts, width, top, name, title, description)


def shares_said(bars: Sequence[Bar]) -> str:
    """The shares of bars in words, for a description."""
    texts = [", ".join(f"{100 * share:.1f}% {kind}" for kind, share in bar.shares.items()) for bar in bars]
    return " ".join(f"{bar.name}: {text}." for bar, text in zip(bars, texts, strict=True))


def interval_chart(
    rows: Sequence[Interval],
    *,
    name: str,
    title: str,
    description: str,
    x_label: str,
    has_zero: bool = False,
    width: int = 480,
) -> Markup:
    """Values as points on the lines of their intervals, published ones as open diamonds. has_zero: whether 0 is
    marked."""
    values = [row.value for row in rows] + [row.published for row in rows if row.published is not None]
    values += [end for row in rows for end in row.interval or ()] + ([0.0] if has_zero else [])
    ticks = nice_ticks(min(values), max(values), 6)
    left, right = 14, width - 14
    num_lines = sum(len(_row_name(row.name, 0, width)) for row in rows)
    bottom = num_lines * _LINE + len(rows) * (_BAR + _GAP // 2) + 4
    x_of = _scale(ticks[0], ticks[-1], left, right)
    parts = [_tag("line", "", x1=x_of(x), x2=x_of(x), y1=0, y2=bottom, class_="rule") for x in ticks]
    parts += [_text(x_of(x), bottom + 16, _number(x, ticks), "middle") for x in ticks]
    parts.append(_text((left + right) / 2, bottom + 34, x_label, "middle", "name"))
    if has_zero:
        parts.append(_tag("line", "", x1=x_of(0), x2=x_of(0), y1=0, y2=bottom, class_="mark"))
    top = 0
    for row in rows:
        named = _row_name(row.name, top, width)
        parts += named
        top += _LINE * len(named)
        y = top + 8
        top += _BAR + _GAP // 2
        inner = []
        if row.interval is not None:
            low, high = map(x_of, row.interval)
            inner.append(_tag("line", "", x1=f"{low:.1f}", x2=f"{high:.1f}", y1=y, y2=y, class_="line"))
        said = _tag("title", escape(f"{row.name}: {row.value:.2f}"))
        inner.append(_tag("circle", said, cx=f"{x_of(row.value):.1f}", cy=y, r=5))
        parts.append(_tag("g", Markup("").join(inner), class_=row.tone))
        if row.published is not None:
            x = x_of(row.published)
            said = _tag("title", escape(f"{row.name}, published: {row.published:.2f}"))
            diamond = f"{x - 6:.1f},{y} {x:.1f},{y - 6} {x + 6:.1f},{y} {x:.1f},{y + 6}"
            parts.append(_tag("polygon", said, points=diamond, class_="published"))
    return _svg(parts, width, bottom + 40, name, title, description)


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers with one distance, the first at most `low`, the last at least `high`."""
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power, 20 * power):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [number * step for number in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _number(value: float, ticks: Sequence[float]) -> str:
    """A tick with as many digits after the point as one of them needs."""
    digits = next(digits for digits in range(10) if all(abs(round(tick, digits) - tick) < 1e-9 for tick in ticks))
    return f"{value:,.{digits}f}"


def _upright(text: str, bottom: float) -> Markup:
    y = (_TOP + bottom) / 2
    return _tag(
        "text", escape(text), transform=f"translate(14 {y:.0f}) rotate(-90)", text_anchor="middle", class_="name"
    )


def _text(x: float, y: float, text: str, anchor: str, class_: str = "tick") -> Markup:
    return _tag("text", escape(text), x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=class_)


def _row_name(name: str, top: float, width: int) -> list[Markup]:
    """A row's name in as many lines as it needs: text in SVG does not break by itself."""
    lines = textwrap.wrap(name, width // _LETTER) or [name]
    return [_text(0, top + 12 + number * _LINE, line, "start", "row") for number, line in enumerate(lines)]


def _tag(tag: str, content: Markup | str, **attributes: object) -> Markup:
    named = Markup("").join(
        Markup(' {}="{}"').format(
            name.rstrip("_").replace("_", "-"), f"{value:.1f}" if isinstance(value, float) else value
        )
        for name, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), named, content)


def _svg(parts: Iterable[Markup], width: int, height: int, name: str, title: str, description: str) -> Markup:
    inner = Markup("").join(
        [
            _tag("title", escape(title), id=f"{name}-title"),
            _tag("desc", escape(description), id=f"{name}-desc"),
            *parts,
        ]
    )
    return _tag(
        "svg",
        inner,
        class_="chart wide" if width >= _WIDE else "chart",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )
