"""A table for a terminal: columns by what the eye sees (umlauts in either Unicode form are one cell), never wrapped."""

import unicodedata
from typing import List, Sequence, Tuple

GAP = "  "


def width_of(text: str) -> int:
    """Cells of a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clean(text: str) -> str:
    """Composed, without control and invisible characters, which would shift the columns."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(" " if c.isspace() else c for c in composed if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))


def cut(text: str, width: int) -> str:
    """At most `width` cells, an ellipsis where something is missing."""
    if width_of(text) <= width:
        return text
    kept = ""
    for c in text:
        if width_of(kept + c) > width - 1:
            break
        kept += c
    return kept + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], give_way: Sequence[Tuple[int, int]], width: int) -> List[str]:
    """Lines of at most `width` cells: where they would be longer, columns give way in the order of `give_way`, each down
    to the width named there."""
    cells = [[clean(cell) for cell in row] for row in [head, *rows]]
    widths = [max(width_of(row[i]) for row in cells) for i in range(len(head))]
    for column, least in give_way:
        too_much = sum(widths) + len(GAP) * (len(widths) - 1) - width
        widths[column] -= max(0, min(too_much, widths[column] - least))
    lines = []
    for row in cells:
        texts = [cut(cell, widths[i]) for i, cell in enumerate(row)]
        lines.append(GAP.join(text + " " * (widths[i] - width_of(text)) for i, text in enumerate(texts)).rstrip())
    return [lines[0], GAP.join("-" * w for w in widths), *lines[1:]]
