"""The ladder of docs/ladder.json: what each step of a kernel bought, as tables for docs/kernels.md and as a picture."""
from __future__ import annotations

import math

from svg import Picture

KEPT, OTHER, DROPPED = "#1b6ca8", "#9bb8cd", "#d1495b"


def ratio(step: dict) -> float:
    return step["after"] / step["before"]


def shown(value: float) -> str:
    return f"{value:g}" if value >= 100 else f"{value:.2f}"


def predicted(step: dict) -> str:
    return f"{step['predicted']:.2f}" if "predicted" in step else "none"


def kept_table(steps: list[dict]) -> list[list[str]]:
    rows = [["step", "in", "predicted", "times", "measured, TFLOP/s", "elsewhere"]]
    for step in steps:
        before = f"{shown(step['before'])} (`{step['from']}`)" if "from" in step else shown(step["before"])
        rows.append([step["step"], f"`{step['name']}`, [{step['file'].rsplit('/', 1)[1]}](../{step['file']})", predicted(step),
                     f"**{ratio(step):.2f}**", f"{step['row']}: {before} -> {shown(step['after'])}", step.get("also", "")])
    return rows


def dropped_table(steps: list[dict]) -> list[list[str]]:
    rows = [["tried and dropped", "predicted", "times", "measured, TFLOP/s", "elsewhere"]]
    for step in steps:
        rows.append([step["step"], predicted(step), f"{ratio(step):.2f}",
                     f"{step['row']}: {shown(step['before'])} -> {shown(step['after'])}", step.get("also", "")])
    return rows


def draw(which: str, kept: list[dict], dropped: list[dict]) -> str:
    """A bar for each step from 1, on a logarithmic axis; what was dropped below."""
    left, width, row, top = 232, 560, 19, 44
    steps = [(step, OTHER if "from" in step else KEPT) for step in kept] + [None] + [(step, DROPPED) for step in dropped]
    low, high = 0.7, 1.15 * max(ratio(step) for step in kept)
    bottom = top + row * len(steps)
    picture = Picture(left + width + 226, bottom + 44, f"What each step of the Hopper {which} bought")

    def across(value: float) -> float:
        return left + width * math.log(value / low) / math.log(high / low)

    picture.text(left, 16, f"Hopper's {which}: times as fast as before the step, in the row where it counts most", 12)
    for tick in (0.75, 1, 1.25, 1.5, 2, 3, 4, 5):
        if tick < high:
            picture.line(across(tick), top - 6, across(tick), bottom + 2, "#333" if tick == 1 else "#e2e2e2")
            picture.text(across(tick), top - 11, f"{tick:g}", 9, "#666", "middle")
    for n, entry in enumerate(steps):
        y = top + row * n
        if entry is None:
            picture.text(left - 8, y + 13, "tried and dropped:", 11, DROPPED, "end", True)
            continue
        step, colour = entry
        begin, end = sorted((across(1), across(ratio(step))))
        picture.text(left - 8, y + 13, step["short"], 11, "#222", "end")
        picture.rect(begin, y + 3, max(end - begin, 1), row - 6, colour)
        if "predicted" in step:
            picture.diamond(across(step["predicted"]), y + row / 2, 5, "#222")
        said = f"{ratio(step):.2f}  {step['row'].split(',')[0]}"
        picture.text(max(end, across(step.get("predicted", 1)) + 6) + 5, y + 13, said, 10, "#444")
    for x, colour, label in ((left, KEPT, "beside the kernel before the step"), (left + 470, DROPPED, "dropped"),
                             (left + 205, OTHER, "beside the portable kernel that served before")):
        picture.rect(x, bottom + 18, 12, 12, colour)
        picture.text(x + 17, bottom + 28, label, 10)
    if any("predicted" in step for step in kept + dropped):
        picture.diamond(left + 546, bottom + 24, 5, "#222")
        picture.text(left + 556, bottom + 28, "predicted", 10)
    return picture.finish()
