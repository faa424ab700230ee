"""One block of the Hopper forward over time: who works, what lies in shared memory, which barrier lets whom go on (block_model.py).

A model of kernels/forward_sm90.cu, head size 128 on tiles of 128 x 128: its roles are the functions below, in the kernel's order of
waits and arrivals, and they last what docs/timeline.json says. It draws docs/pictures/forward_timeline.svg (bench/pages.py).
"""
from __future__ import annotations

from collections import Counter

from block_model import Block, Span, View, paint

CONSUMERS, STAGES, Q_STAGES = 2, 2, 2
KEYS = (4, 2)                                             # tiles of keys that each tile of rows meets


def scout(block: Block):
    for turn in range(len(KEYS)):
        yield lambda: block.done["job empty"] >= CONSUMERS * (turn - 1)
        yield from block.work("scout", block.clocks["scout"], f"rows {turn}", "scout")
        block.arrive("job full", "scout")
        yield lambda: block.done["job wanted"] > turn


def loader(block: Block):
    laps = Counter()

    def fetch(kind: str, key: int):
        yield lambda: block.done[f"{kind} empty"] >= CONSUMERS * (laps[kind] + 1 - STAGES)
        block.spans.append(Span("loader", block.now, block.now + 150, "", "loader"))
        block.fetch(f"{kind.upper()} {laps[kind] % STAGES}", f"{kind} full", f"{kind.upper()}{key}")
        laps[kind] += 1

    for turn, count in enumerate(KEYS):
        yield lambda: block.done["job full"] > turn
        for g in range(CONSUMERS):
            yield lambda: block.done[f"q empty {g}"] >= turn + 1 - Q_STAGES
            block.fetch(f"Q {turn % Q_STAGES}", f"q full {g}", f"Q of rows {turn}", 0.5)
        for left in range(count, 0, -1):
            if left == min(count, 2):
                block.arrive("job wanted", "loader")
            yield from fetch("k", left - 1)
            if left < count:
                yield from fetch("v", left)
        yield from fetch("v", 0)


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

    ends = []
    yield lambda: block.done["job full"] > 0
    yield from begin(0)
    yield ends.pop()
    for turn, count in enumerate(KEYS):
        give_back("k")
        yield from block.work(lane, block.clocks["first weights"], f"exp {count - 1}, mask", "weigh")
        for key in range(count - 1, 0, -1):
            yield lambda: block.done["k full"] > laps["k"]
            yield my_turn()
            scores = block.multiply(g, f"S{key - 1}")
            yield lambda: block.done["v full"] > laps["v"]
            sums = block.multiply(g, f"O{key}")
            block.arrive(f"turn of {g}", lane)
            yield scores
            give_back("k")
            yield from block.work(lane, block.clocks["weights"], f"exp {key - 1}", "weigh")
            yield max(sums, block.now)
            give_back("v")
            yield from block.work(lane, block.clocks["pack"], "", "weigh")
        yield lambda: block.done["v full"] > laps["v"]
        block.arrive(f"q empty {g}", lane)
        if g == CONSUMERS - 1 or block.done[f"q empty {1 - g}"] > turn:
            for use in block.filled[f"Q {turn % Q_STAGES}"]:
                use[2] = use[2] or block.now
        sums = block.multiply(g, "O0")
        block.arrive("job empty", lane)
        if turn + 1 < len(KEYS):
            yield lambda: block.done["job full"] > turn + 1
            yield from begin(turn + 1)
        yield max(sums, block.now)
        give_back("v")
        yield from block.work(lane, block.clocks["way out"], "rows to memory", "out")
        if ends:
            yield max(ends.pop(), block.now)


def simulate(clocks: dict) -> Block:
    block = Block(clocks)
    for process in (scout(block), loader(block), *(consumer(block, g) for g in range(CONSUMERS))):
        block.start(process)
    block.run()
    return block


# ---- the picture -----------------------------------------------------------------------------------------------------

LANES = {"scout": "scout (a warp)", "loader": "loader (a warp)", "Q 0": "Q, place 0", "Q 1": "place 1",
         "K 0": "K, stage 0", "K 1": "stage 1", "V 0": "V, stage 0", "V 1": "stage 1",
         "consumer 0": "consumer 0 (4 warps)", "consumer 1": "consumer 1 (4 warps)",
         "tensor cores": "tensor cores"}
ARROWS = [("1", "job full", 1, "consumer 1"), ("2", "k full", 1, "consumer 0"), ("3", "turn of 0", 2, "consumer 1"),
          ("4", "k empty", 3, "loader"), ("5", "v empty", 1, "loader"), ("6", "job wanted", 0, "scout"), ("7", "q empty 1", 0, "loader")]


def draw(clocks: dict) -> str:
    block = simulate(clocks)
    end = max(span.end for span in block.spans if span.kind == "weigh")
    return paint(block, View("A block of the Hopper forward over time", "One block: 128 rows meet four tiles of 128 keys, the next 128 "
                             "rows two; head size 128.", LANES, ("out",), ARROWS, "result to memory, while the next S is under way", end))
