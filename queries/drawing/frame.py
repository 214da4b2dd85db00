"""The `<svg>` around what is drawn: its size, its title for those who listen, its paper."""

from __future__ import annotations

from queries.drawing.palette import INK, PAPER, dark_rules
from queries.drawing.words import SIZE, number, safe

MARGIN = 14.0  # pixels around everything
FONT = "font-family=\"'DejaVu Sans',Verdana,'Segoe UI',sans-serif\""


def framed(
    body: list[str], width: float, height: float, title: str, count: int, *, alone: bool, links: bool = False
) -> str:
    """The `<svg>` around what is drawn, with its title and paper."""
    size = f'width="{number(width)}" height="{number(height)}" viewBox="0 0 {number(width)} {number(height)}"'
    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    # With links inside it is a group to those who listen: an image's parts are not read out.
    role = "group" if links else "img"
    name = safe(f"{title}: {count} features, later ones above")
    style = f"<style>@media (prefers-color-scheme:dark){{{dark_rules()}}}</style>" if alone else ""
    heading = safe(title)
    return "".join(
        [
            f'<svg{space} class="fa-figure" role="{role}" aria-label="{name}" {size} {FONT} font-size="{SIZE:g}">',
            f"<title>{name}</title>{style}",
            f'<rect class="fa-paper" width="{number(width)}" height="{number(height)}" fill="{PAPER}"/>',
            f'<text class="fa-ink" x="{MARGIN:g}" y="20" font-size="13" font-weight="bold" fill="{INK}">',
            f"{heading}</text>",
            *body,
            "</svg>",
        ]
    )
