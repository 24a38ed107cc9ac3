"""Bars as SVG, drawn from the results: no library, and a file that shows wherever the page does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, BAR, GAP, HEAD = 860, 250, 90, 16, 6, 40
OURS, THEIRS, INK, PAPER = "#d9480f", "#748ffc", "#212529", "#ffffff"


@dataclass(frozen=True)
class Panel:
    """Bars under a title: name, value, and what is written beside the bar."""

    title: str
    bars: Sequence[tuple[str, float, str]]

    @property
    def height(self) -> int:
        return HEAD + len(self.bars) * (BAR + GAP) + GAP


def svg(panels: Sequence[Panel]) -> str:
    """The panels below each other, each with a scale of its own that begins at zero."""
    height = sum(panel.height for panel in panels)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="{PAPER}"/>',
    ]
    top = 0
    for panel in panels:
        lines += _panel(panel, top)
        top += panel.height
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    lines = [f'<text x="10" y="{top + 26}" font-size="14" font-weight="bold" fill="{INK}">{escape(panel.title)}</text>']
    most = max((value for _, value, _ in panel.bars), default=1.0) or 1.0
    for number, (name, value, label) in enumerate(panel.bars):
        y = top + HEAD + number * (BAR + GAP)
        length = max(1, round((WIDTH - LEFT - RIGHT) * value / most))
        colour = OURS if name.startswith("flashfw") else THEIRS
        lines += [
            f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end" fill="{INK}">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{length}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{LEFT + length + 6}" y="{y + 12}" fill="{INK}">{escape(label)}</text>',
        ]
    return lines
