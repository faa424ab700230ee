"""A few shapes as SVG text: the same bytes for the same data, so that a test sees whether a picture is stale."""
from __future__ import annotations

from xml.sax.saxutils import escape

FONT = "font-family='Helvetica, Arial, sans-serif'"


def number(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


class Picture:
    def __init__(self, width: float, height: float, title: str):
        self.parts = [f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {number(width)} {number(height)}' width='{number(width)}' "
                      f"height='{number(height)}' {FONT}>", f"<title>{escape(title)}</title>",
                      "<defs><marker id='tip' viewBox='0 0 6 6' refX='5' refY='3' markerWidth='6' markerHeight='6' orient='auto'>"
                      "<path d='M0 0L6 3L0 6z' fill='#333'/></marker></defs>"]
        self.rect(0, 0, width, height, "#ffffff")

    def rect(self, x, y, width, height, fill, stroke="none", dashed=False, round_by=0):
        dash = " stroke-dasharray='2 2'" if dashed else ""
        self.parts.append(f"<rect x='{number(x)}' y='{number(y)}' width='{number(width)}' height='{number(height)}' fill='{fill}' "
                          f"stroke='{stroke}' rx='{number(round_by)}'{dash}/>")

    def line(self, x1, y1, x2, y2, colour="#333", width=1.0, dashed=False, arrow=False):
        more = (" stroke-dasharray='3 3'" if dashed else "") + (" marker-end='url(#tip)'" if arrow else "")
        self.parts.append(f"<line x1='{number(x1)}' y1='{number(y1)}' x2='{number(x2)}' y2='{number(y2)}' stroke='{colour}' "
                          f"stroke-width='{number(width)}'{more}/>")

    def text(self, x, y, what, size=11, colour="#222", anchor="start", bold=False):
        weight = " font-weight='bold'" if bold else ""
        self.parts.append(f"<text x='{number(x)}' y='{number(y)}' font-size='{number(size)}' fill='{colour}' "
                          f"text-anchor='{anchor}'{weight}>{escape(what)}</text>")

    def badge(self, x, y, what):
        self.parts.append(f"<circle cx='{number(x)}' cy='{number(y)}' r='7' fill='#333'/>")
        self.text(x, y + 3.5, what, 10, "#fff", "middle", True)

    def diamond(self, x, y, size, colour):
        points = " ".join(f"{number(a)},{number(b)}" for a, b in ((x - size, y), (x, y - size), (x + size, y), (x, y + size)))
        self.parts.append(f"<polygon points='{points}' fill='#fff' stroke='{colour}' stroke-width='1.5'/>")

    def finish(self) -> str:
        return "\n".join(self.parts) + "\n</svg>\n"
