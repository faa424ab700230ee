"""What a block of a kernel with roles does over time, and how it is drawn: roles are generators that wait at barriers, products share the
tensor cores, copies share one engine. Times are clocks of a multiprocessor."""
from __future__ import annotations

import heapq
from collections import Counter, defaultdict, namedtuple

from svg import Picture

Span = namedtuple("Span", "lane start end label kind")    # a box of the picture
Arrival = namedtuple("Arrival", "barrier time source")    # someone arrived at a barrier


class Block:
    """Processes are generators: they yield a time to sleep until, or a condition to wait for."""

    def __init__(self, clocks: dict):
        self.clocks = clocks
        self.now, self.serial, self.heap, self.waiting = 0.0, 0, [], []
        self.done = Counter()         # arrivals at each barrier, all laps
        self.product_end, self.copy_end = 0.0, 0.0
        self.spans, self.arrivals, self.products = [], [], []
        self.filled = defaultdict(list)   # of each place in shared memory: [asked for, there, given back, label]

    def start(self, process):
        self.serial += 1
        heapq.heappush(self.heap, (self.now, self.serial, process))

    def run(self):
        while self.heap:
            self.now, _, process = heapq.heappop(self.heap)
            self.advance(process)
            ready = [entry for entry in self.waiting if entry[0]()]
            while ready:
                for entry in ready:
                    self.waiting.remove(entry)
                    self.advance(entry[1])
                ready = [entry for entry in self.waiting if entry[0]()]

    def advance(self, process):
        wanted = next(process, None)
        if callable(wanted):
            self.waiting.append((wanted, process))
        elif wanted is not None:
            self.serial += 1
            heapq.heappush(self.heap, (wanted, self.serial, process))

    def arrive(self, barrier: str, source: str):
        self.done[barrier] += 1
        self.arrivals.append(Arrival(barrier, self.now, source))

    def multiply(self, consumer: int, label: str) -> float:
        """Products are queued; returns when this one has ended."""
        begin = max(self.now, self.product_end)
        self.product_end = begin + self.clocks["product"]
        self.products.append((consumer, label, begin, self.product_end))
        return self.product_end

    def fetch(self, place: str, barrier: str, label: str, tiles: float = 1.0):
        begin = max(self.now, self.copy_end)
        self.copy_end = begin + tiles * self.clocks["copy"]
        there = self.copy_end + self.clocks["latency"]
        self.filled[place].append([self.now, there, None, label])

        def landing():
            yield there
            self.arrive(barrier, place)
        self.start(landing())

    def work(self, lane: str, clocks: float, label: str, kind: str):
        start = self.now
        yield start + clocks
        self.spans.append(Span(lane, start, self.now, label, kind))


# ---- the picture -----------------------------------------------------------------------------------------------------

# title: of the file, then what it shows; lanes: from above, with their names; pale: kinds of spans that are drawn pale; arrows: badge,
# barrier, which arrival, the lane that goes on because of it; legend: what the pale colour means
View = namedtuple("View", "title said lanes pale arrows legend end")
COLOURS = {"loader": "#777777", "scout": "#8d6a9f", "notes": "#8d6a9f", "consumer 0": "#1b6ca8", "consumer 1": "#d1495b",
           "under way": "#e3ecd3", "held": "#a9c77a"}
PALE = {"consumer 0": "#d5e5f1", "consumer 1": "#f6dbdf"}
LEFT, TOP, ROW, GAP, WIDTH = 136, 34, 24, 6, 976


def paint(block: Block, view: View) -> str:
    scale, names = WIDTH / view.end, list(view.lanes)
    across, down = (lambda t: LEFT + t * scale), {lane: TOP + n * (ROW + GAP) for n, lane in enumerate(names)}
    bottom = down[names[-1]] + ROW
    picture = Picture(across(view.end) + 14, bottom + 58, view.title)
    picture.text(LEFT, 16, view.said + " Time in clocks of a multiprocessor.", 12)
    for t in range(0, int(view.end) + 1, 2000 if view.end > 12000 else 1000):
        picture.line(across(t), TOP - 4, across(t), bottom + 4, "#e2e2e2")
        picture.text(across(t), bottom + 16, f"{t}", 9, "#666", "middle")
    for lane, name in view.lanes.items():
        picture.text(LEFT - 8, down[lane] + 16, name, 11, "#222", "end")

    def box(lane, start, finish, label, fill, colour="#222", stroke="none"):
        finish = min(finish, view.end)
        if start >= view.end:
            return
        picture.rect(across(start), down[lane], (finish - start) * scale, ROW, fill, stroke)
        if label and (finish - start) * scale > 5.2 * len(label):
            picture.text(across((start + finish) / 2), down[lane] + 16, label, 10, colour, "middle")

    for place, uses in block.filled.items():
        for n, (asked, there, given_back, label) in enumerate(uses):
            if n and uses[n - 1][0] == asked:
                continue  # the same tile in parts
            box(place, asked, there, "", COLOURS["under way"], stroke="#a9c77a")
            box(place, there, given_back or view.end, label, COLOURS["held"])
    for lane, start, finish, label, kind in block.spans:
        pale = kind in view.pale
        box(lane, start, finish, label, PALE[lane] if pale else COLOURS[lane], "#222" if pale else "#fff", "#fff")
    for g, label, start, finish in block.products:
        box("tensor cores", start, finish, label, COLOURS[f"consumer {g}"], "#fff", "#fff")
    for badge, barrier, which, target in view.arrows:
        arrival = [a for a in block.arrivals if a.barrier == barrier][which]
        x, from_y = across(arrival.time), down[arrival.source]
        up = down[target] < from_y
        picture.line(x, from_y + (0 if up else ROW), x, down[target] + (ROW + 1 if up else -1), arrow=True)
        picture.badge(x, from_y + (7 if up else ROW - 7), badge)
    x, y = LEFT, bottom + 40
    for fill, label in ((COLOURS["under way"], "asked for, under way"), (COLOURS["held"], "there, until the consumers gave it back"),
                        (COLOURS["consumer 0"], "consumer 0"), (COLOURS["consumer 1"], "consumer 1"), (PALE["consumer 0"], view.legend)):
        picture.rect(x, y - 9, 12, 12, fill, "#999")
        picture.text(x + 17, y + 1, label, 10)
        x += 40 + 5.2 * len(label)
    return picture.finish()
