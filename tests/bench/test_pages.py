"""bench/pages.py: no page or drawing is stale, what they name exists, and the drawn blocks obey their barriers."""
import json
import re
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "bench"))
import pages  # noqa: E402
import timeline  # noqa: E402
import timeline_backward  # noqa: E402

LADDER = json.loads((TOP / "docs" / "ladder.json").read_text())
CLOCKS = {which: {name: value["clocks"] for name, value in clocks.items()}
          for which, clocks in json.loads((TOP / "docs" / "timeline.json").read_text()).items()}


def test_nothing_is_stale():
    assert not pages.stale(), "run python3 bench/pages.py"


def test_every_block_stands_on_a_page():
    text = "".join((TOP / page).read_text() for page in pages.PAGES)
    assert sorted(name for _, name, _, _ in pages.BLOCK.findall(text)) == sorted(pages.blocks())


def test_a_changed_number_is_noticed():
    text = (TOP / "docs" / "kernels.md").read_text()
    number = re.search(r"\*\*(\d+) / ", text)
    changed = text[:number.start(1)] + "1" + text[number.end(1):]
    assert changed != text == pages.filled(changed, pages.blocks())


def test_every_trick_stands_in_its_file():
    for which in ("forward", "backward"):
        for step in LADDER[which]:
            assert re.search(rf"\b{re.escape(step['name'])}\b", (TOP / step["file"]).read_text()), step["short"]
            assert step["after"] > step["before"] > 0, step["short"]
        assert all(step["row"] and step["before"] > 0 and step["after"] > 0 for step in LADDER[f"{which} dropped"])


def test_files_that_the_pages_name_are_there():
    names = {path.name for folder in ("kernels", "kernels/shared", "src/cuda", "bench", "docs") for path in (TOP / folder).iterdir()}
    for page in ("kernels.md", "kernels_backward.md"):
        for name in re.findall(r"`(?:[\w/]+/)?(\w+\.(?:cuh?|c|h|py|json))`", (TOP / "docs" / page).read_text()):
            assert name in names, f"{page} names {name}"


def test_links_lead_somewhere():
    texts = [page for places in ("*", "docs/*", "bench/*", "bench/results/*", "bindings/*/*") for page in TOP.glob(places + ".md")]
    links = [(page, link) for page in texts for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()) if "://" not in link]
    assert len(links) > 20
    for page, link in links:
        assert (page.parent / link).exists(), f"{page.relative_to(TOP)} leads to {link}"


@pytest.fixture(scope="module")
def block():
    return timeline.simulate(CLOCKS["forward"])


@pytest.fixture(scope="module")
def backward():
    return timeline_backward.simulate(CLOCKS["backward"])


def test_products_do_not_overlap(block, backward):
    for one in (block, backward):
        ordered = sorted(one.products, key=lambda product: product[2])
        assert all(after[2] >= before[3] for before, after in zip(ordered, ordered[1:]))
    for g in range(timeline.CONSUMERS):
        labels = [label for consumer, label, _, _ in block.products if consumer == g]
        assert sorted(labels) == sorted(f"{kind}{key}" for count in timeline.KEYS for key in range(count) for kind in "SO")
        labels = [label for consumer, label, _, _ in backward.products if consumer == g]
        assert sorted(labels) == sorted(f"{kind}{n}" for n in range(timeline_backward.TILES) for kind in ("s", "dp", "dv", "dq", "dk"))


def test_no_place_is_filled_before_it_was_given_back(block, backward):
    for one in (block, backward):
        for place, uses in one.filled.items():
            step = timeline.CONSUMERS if place[0] == "Q" and one is block else 1
            for before, after in zip(uses[::step], uses[step::step]):
                assert before[1] <= before[2] <= after[0], place


def test_a_step_takes_what_was_read(block):
    first = {label: start for g, label, start, _ in block.products if g == 0 and start < block.products[-1][2] / 2}
    assert first["S1"] - first["S2"] == first["S0"] - first["S1"] == 2600


def test_only_the_next_rows_first_product_stands_beside_an_end(block):
    ends = [span for span in block.spans if span.kind == "out"]
    assert len(ends) == timeline.CONSUMERS * len(timeline.KEYS)
    for span in ends[:timeline.CONSUMERS]:
        own = [label for g, label, start, end in block.products if span.lane.endswith(str(g)) and start < span.end and end > span.start]
        assert own == [f"S{timeline.KEYS[1] - 1}"]


def test_dq_begins_when_both_have_stored_ds(backward):
    met = [arrival.time for arrival in backward.arrivals if arrival.barrier == "met"]
    for n in range(timeline_backward.TILES):
        assert all(start >= max(met[2 * n:2 * n + 2]) for _, label, start, _ in backward.products if label == f"dq{n}")
