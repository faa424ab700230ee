"""One block of the Hopper forward over time: who works, what lies in shared memory, which barrier lets whom go on.

A model of kernels/forward_sm90.cu, head size 128 on tiles of 128 x 128: its roles are the functions below, in the kernel's order of
waits and arrivals, and they last what docs/timeline.json says. It draws docs/pictures/forward_timeline.svg (bench/pages.py).
"""
from __future__ import annotations

import heapq
from collections import Counter, defaultdict, namedtuple

from svg import Picture

CONSUMERS, STAGES, Q_STAGES = 2, 2, 2
Span = namedtuple("Span", "lane start end label kind")    # a box of the picture
Arrival = namedtuple("Arrival", "barrier time source")    # someone arrived at a barrier
KEYS = (4, 2)                                             # tiles of keys that each tile of rows meets


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


def scout(block: Block):
    for turn in range(len(KEYS)):
        yield lambda: block.done["job empty"] >= CONSUMERS * (turn - 1)
        begin = block.now
        yield begin + block.clocks["scout"]
        block.spans.append(Span("scout", begin, block.now, f"rows {turn}", "scout"))
        block.arrive("job full", "scout")
        yield lambda: block.done["job wanted"] > turn


def loader(block: Block):
    laps = Counter()
    for turn, count in enumerate(KEYS):
        yield lambda: block.done["job full"] > turn
        for g in range(CONSUMERS):
            yield lambda: block.done[f"q empty {g}"] >= turn + 1 - Q_STAGES
            block.fetch(f"Q {turn % Q_STAGES}", f"q full {g}", f"Q of rows {turn}", 0.5)
        for i in range(count + 1):
            if i == count - 1:
                block.arrive("job wanted", "loader")
            for kind, key in (("k", count - 1 - i), ("v", count - i)):
                if 0 <= key < count:
                    place = f"{kind.upper()} {laps[kind] % STAGES}"
                    yield lambda: block.done[f"{kind} empty"] >= CONSUMERS * (laps[kind] + 1 - STAGES)
                    block.spans.append(Span("loader", block.now, block.now + 150, f"{kind.upper()}{key}", "loader"))
                    block.fetch(place, f"{kind} full", f"{kind.upper()}{key}")
                    laps[kind] += 1


def consumer(block: Block, g: int):
    lane, laps, turns = f"consumer {g}", Counter(), 0

    def give_back(kind: str):
        laps[kind] += 1
        block.arrive(f"{kind} empty", lane)
        if block.done[f"{kind} empty"] % CONSUMERS == 0:
            at = block.done[f"{kind} empty"] // CONSUMERS - 1
            block.filled[f"{kind.upper()} {at % STAGES}"][at // STAGES][2] = block.now

    def my_turn():
        nonlocal turns
        turns += 1
        before, wanted = (g - 1) % CONSUMERS, turns if g else turns - 1
        return lambda: block.done[f"turn of {before}"] >= wanted

    def begin(turn: int):
        yield lambda: block.done[f"q full {g}"] > turn
        yield lambda: block.done["k full"] > laps["k"]
        yield my_turn()
        ends.append(block.multiply(g, f"S{KEYS[turn] - 1}"))
        block.arrive(f"turn of {g}", lane)

    def work(clocks: float, label: str, kind: str):
        start = block.now
        yield start + clocks
        block.spans.append(Span(lane, start, block.now, label, kind))

    ends = []
    yield lambda: block.done["job full"] > 0
    yield from begin(0)
    yield ends.pop()
    for turn, count in enumerate(KEYS):
        give_back("k")
        yield from work(block.clocks["first weights"], f"exp {count - 1}, mask", "weigh")
        for key in range(count - 1, 0, -1):
            yield lambda: block.done["k full"] > laps["k"]
            yield my_turn()
            scores = block.multiply(g, f"S{key - 1}")
            yield lambda: block.done["v full"] > laps["v"]
            sums = block.multiply(g, f"O{key}")
            block.arrive(f"turn of {g}", lane)
            yield scores
            give_back("k")
            yield from work(block.clocks["weights"], f"exp {key - 1}", "weigh")
            yield max(sums, block.now)
            give_back("v")
            yield from work(block.clocks["pack"], "", "weigh")
        yield lambda: block.done["v full"] > laps["v"]
        block.arrive(f"q empty {g}", lane)
        if g == CONSUMERS - 1 or block.done[f"q empty {1 - g}"] > turn:
            for use in block.filled[f"Q {turn % Q_STAGES}"]:
                use[2] = use[2] or block.now
        sums = block.multiply(g, "O0")
        if turn + 1 < len(KEYS):
            yield lambda: block.done["job full"] > turn + 1
            yield from begin(turn + 1)
        yield max(sums, block.now)
        give_back("v")
        yield from work(block.clocks["way out"], "rows to memory", "out")
        block.arrive("job empty", lane)
        if ends:
            yield max(ends.pop(), block.now)


def simulate(clocks: dict) -> Block:
    block = Block(clocks)
    for process in (scout(block), loader(block), *(consumer(block, g) for g in range(CONSUMERS))):
        block.start(process)
    block.run()
    return block


# ---- the picture -----------------------------------------------------------------------------------------------------

LANES = ["scout", "loader", "Q 0", "Q 1", "K 0", "K 1", "V 0", "V 1", "consumer 0", "consumer 1", "tensor cores"]
NAMES = {"scout": "scout (a warp)", "loader": "loader (a warp)", "Q 0": "Q, place 0", "Q 1": "place 1",
         "K 0": "K, stage 0", "K 1": "stage 1", "V 0": "V, stage 0", "V 1": "stage 1",
         "consumer 0": "consumer 0 (4 warps)", "consumer 1": "consumer 1 (4 warps)"}
COLOURS = {"scout": "#8d6a9f", "loader": "#777777", "consumer 0": "#1b6ca8", "consumer 1": "#d1495b",
           "under way": "#e3ecd3", "held": "#a9c77a"}
PALE = {"consumer 0": "#d5e5f1", "consumer 1": "#f6dbdf"}
# badge, barrier, which arrival, the lane that goes on because of it
ARROWS = [("1", "job full", 1, "consumer 1"), ("2", "k full", 1, "consumer 0"), ("3", "turn of 0", 2, "consumer 1"),
          ("4", "k empty", 3, "loader"), ("5", "v empty", 1, "loader"), ("6", "job wanted", 0, "scout"), ("7", "q empty 1", 0, "loader")]
LEFT, TOP, ROW, GAP, SCALE = 136, 34, 24, 6, 0.0475


def draw(clocks: dict) -> str:
    block = simulate(clocks)
    end = max(span.end for span in block.spans if span.kind == "weigh")
    across, down = (lambda t: LEFT + t * SCALE), {lane: TOP + n * (ROW + GAP) for n, lane in enumerate(LANES)}
    bottom = down[LANES[-1]] + ROW
    picture = Picture(across(end) + 14, bottom + 58, "A block of the Hopper forward over time")
    picture.text(LEFT, 16, "One block: 128 rows meet four tiles of 128 keys, the next 128 rows two; head size 128. Time in clocks of a "
                 "multiprocessor.", 12)
    for t in range(0, int(end) + 1, 2000):
        picture.line(across(t), TOP - 4, across(t), bottom + 4, "#e2e2e2")
        picture.text(across(t), bottom + 16, f"{t}", 9, "#666", "middle")
    for lane in LANES:
        picture.text(LEFT - 8, down[lane] + 16, NAMES.get(lane, lane), 11, "#222", "end")

    def box(lane, start, finish, label, fill, colour="#222", stroke="none"):
        finish = min(finish, end)
        if start >= end:
            return
        picture.rect(across(start), down[lane], (finish - start) * SCALE, ROW, fill, stroke)
        if label and (finish - start) * SCALE > 5.2 * len(label):
            picture.text(across((start + finish) / 2), down[lane] + 16, label, 10, colour, "middle")

    for place, uses in block.filled.items():
        for asked, there, given_back, label in uses[::CONSUMERS] if place[0] == "Q" else uses:
            box(place, asked, there, "", COLOURS["under way"], stroke="#a9c77a")
            box(place, there, given_back or end, label, COLOURS["held"])
    for lane, start, finish, label, kind in block.spans:
        fill = PALE[lane] if kind == "out" else COLOURS[lane]
        box(lane, start, finish, label if lane != "loader" else "", fill, "#222" if kind == "out" else "#fff", "#fff")
    for g, label, start, finish in block.products:
        box("tensor cores", start, finish, label, COLOURS[f"consumer {g}"], "#fff", "#fff")
    for badge, barrier, which, target in ARROWS:
        arrival = [a for a in block.arrivals if a.barrier == barrier][which]
        x, from_y = across(arrival.time), down[arrival.source]
        up = down[target] < from_y
        picture.line(x, from_y + (0 if up else ROW), x, down[target] + (ROW + 1 if up else -1), arrow=True)
        picture.badge(x, from_y + (7 if up else ROW - 7), badge)
    y = bottom + 40
    for x, fill, label in ((LEFT, COLOURS["under way"], "asked for, under way"),
                           (LEFT + 150, COLOURS["held"], "there, until both consumers gave it back"),
                           (LEFT + 395, COLOURS["consumer 0"], "consumer 0"), (LEFT + 485, COLOURS["consumer 1"], "consumer 1"),
                           (LEFT + 575, PALE["consumer 0"], "result to memory, while the next S is under way")):
        picture.rect(x, y - 9, 12, 12, fill, "#999")
        picture.text(x + 17, y + 1, label, 10)
    return picture.finish()
