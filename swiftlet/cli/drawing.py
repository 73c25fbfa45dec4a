"""A drawing of rectangles, lines and words, written as SVG by itself and as PNG by matplotlib, which may be missing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple
from xml.sax.saxutils import escape

from swiftlet.model.error import HostError, InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LETTER = 0.6
"""A letter's width as a part of its height, in the fonts that are asked for."""

_FONT = "DejaVu Sans Mono"
_DPI = 100
_POINTS = 72


class Box(NamedTuple):
    """Pixels from the upper left corner. title: what is shown when somebody points at it. text: written inside."""

    x: float
    y: float
    width: float
    height: float
    color: str
    title: str = ""
    text: str = ""


class Words(NamedTuple):
    """A line of text; x and y are where its base line starts, or ends."""

    x: float
    y: float
    text: str
    size: int = 11
    color: str = "#222222"
    at_end: bool = False


class Line(NamedTuple):
    """A thin line."""

    x: float
    y: float
    to_x: float
    to_y: float
    color: str = "#999999"


class Drawing(NamedTuple):
    """Everything, from the back to the front."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    words: tuple[Words, ...]


def check_path(path: str) -> None:
    """Whether a drawing can be written there. Raises InputError, HostError, before anything has been measured."""
    if not path.endswith((".svg", ".png")):
        raise InputError(f"--output {path}: neither .svg nor .png", "name a file such as boot.svg")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise InputError(f"--output {path}: there is no folder {folder}")
    if path.endswith(".png"):
        _matplotlib()


def write(drawing: Drawing, path: str) -> None:
    """Write it, as the name's ending says. Raises HostError, OSError."""
    if path.endswith(".png"):
        _write_png(drawing, path)
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(svg(drawing))


def fitting(text: str, width: float, size: int) -> str:
    """As much of a text as has room, "" where that would say nothing."""
    room = int((width - 4) / (size * LETTER))
    return text if len(text) <= room else f"{text[: room - 1]}…" if room > 3 else ""


def svg(drawing: Drawing) -> str:
    """The drawing as SVG."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawing.width}" height="{drawing.height}" '
        f'viewBox="0 0 {drawing.width} {drawing.height}" font-family="{_FONT}, monospace">',
        f'<rect width="{drawing.width}" height="{drawing.height}" fill="#ffffff"/>',
        *map(_svg_box, drawing.boxes),
        *map(_svg_line, drawing.lines),
        *map(_svg_words, drawing.words),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _svg_box(box: Box) -> str:
    rect = (
        f'<rect x="{box.x:.2f}" y="{box.y:.2f}" width="{box.width:.2f}" height="{box.height:.2f}" fill="{box.color}"/>'
    )
    text = fitting(box.text, box.width, 10)
    shown = _svg_words(Words(box.x + 2, box.y + box.height - 4, text, 10)) if text else ""
    return f"<g><title>{_escaped(box.title)}</title>{rect}{shown}</g>"


def _svg_line(line: Line) -> str:
    ends = f'x1="{line.x:.2f}" y1="{line.y:.2f}" x2="{line.to_x:.2f}" y2="{line.to_y:.2f}"'
    return f'<line {ends} stroke="{line.color}" stroke-width="1"/>'


def _svg_words(words: Words) -> str:
    anchor = ' text-anchor="end"' if words.at_end else ""
    place = f'x="{words.x:.2f}" y="{words.y:.2f}"'
    return f'<text {place} font-size="{words.size}" fill="{words.color}"{anchor}>{_escaped(words.text)}</text>'


def _escaped(text: str) -> str:
    return escape("".join(c if c.isprintable() else "?" for c in text))


def _matplotlib() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError:
        raise HostError("no matplotlib here to draw a PNG", "pip install matplotlib, or ask for FILE.svg") from None
    return FigureCanvasAgg


def _write_png(drawing: Drawing, path: str) -> None:
    canvas = _matplotlib()
    from matplotlib.collections import LineCollection, PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(drawing.width / _DPI, drawing.height / _DPI), dpi=_DPI)
    canvas(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    axes.set_axis_off()
    patches = [Rectangle((box.x, box.y), box.width, box.height) for box in drawing.boxes]
    colors = [box.color for box in drawing.boxes]
    axes.add_collection(PatchCollection(patches, facecolors=colors, edgecolors="none"))
    segments = [((line.x, line.y), (line.to_x, line.to_y)) for line in drawing.lines]
    axes.add_collection(LineCollection(segments, colors=[line.color for line in drawing.lines], linewidths=0.7))
    for words in _all_words(drawing.boxes, drawing.words):
        axes.text(
            words.x, words.y, words.text.replace("$", r"\$"), fontsize=words.size * _POINTS / _DPI, color=words.color,
            family="monospace", ha="right" if words.at_end else "left", va="baseline",
        )  # fmt: skip
    figure.savefig(path, dpi=_DPI, format="png")


def _all_words(boxes: Iterable[Box], words: Iterable[Words]) -> list[Words]:
    inside = [(box, text) for box in boxes if (text := fitting(box.text, box.width, 10))]
    return [*(Words(box.x + 2, box.y + box.height - 4, text, 10) for box, text in inside), *words]
