"""One block of the Hopper backward over time, as timeline.py shows the forward's: a model of kernels/backward_sm90.cu, head size 128,
tiles of 64 rows. It draws docs/pictures/backward_timeline.svg."""
from __future__ import annotations

from block_model import Block, Span, View, paint

CONSUMERS, STAGES, TILES = 2, 2, 3


def loader(block: Block):
    for n in range(TILES):
        for kind, name in (("q", "Q"), ("dout", "dO")):
            yield lambda: block.done[f"{kind} empty"] >= CONSUMERS * (n + 1 - STAGES)
            block.spans.append(Span("loader", block.now, block.now + 60, "", "loader"))
            block.fetch(f"{name} {n % STAGES}", f"{kind} full", f"{name}{n}")


def noting(block: Block):
    """A note with each tile: its place is Q's."""
    for n in range(TILES):
        yield lambda: block.done["q empty"] >= CONSUMERS * (n + 1 - STAGES)
        yield from block.work("notes", block.clocks["note"], f"{n}", "notes")
        block.arrive("note", "notes")


def consumer(block: Block, g: int):
    lane, clocks, places = f"consumer {g}", block.clocks, {"q": "Q", "dout": "dO"}

    def give_back(kind: str):
        block.arrive(f"{kind} empty", lane)
        if block.done[f"{kind} empty"] % CONSUMERS == 0:
            n = block.done[f"{kind} empty"] // CONSUMERS - 1
            block.filled[f"{places[kind]} {n % STAGES}"][n // STAGES][2] = block.now

    yield lambda: block.done["q full"] > 0 and block.done["note"] > 0
    yield block.multiply(g, "s0")
    for n in range(TILES):
        yield lambda: block.done["dout full"] > n
        dp = block.multiply(g, f"dp{n}")
        yield from block.work(lane, clocks["exponents"], f"p{n}", "work")
        yield max(dp, block.now)
        dv = block.multiply(g, f"dv{n}")
        yield from block.work(lane, clocks["gradients"], f"ds{n}", "work")
        if g == 0:
            block.filled[f"dS {n % STAGES}"].append([block.now, block.now + clocks["store"], None, f"ds{n}"])
        yield from block.work(lane, clocks["store"], "", "work")
        block.arrive("met", lane)
        yield lambda: block.done["met"] >= CONSUMERS * (n + 1)
        yield max(dv, block.now)
        give_back("dout")
        dq = block.multiply(g, f"dq{n}")
        if n + 1 < TILES:
            yield lambda: block.done["q full"] > n + 1 and block.done["note"] > n + 1
        more = [block.multiply(g, f"s{n + 1}")] if n + 1 < TILES else []
        dk = block.multiply(g, f"dk{n}")
        yield dq
        block.filled[f"dS {n % STAGES}"][n // STAGES][2] = block.now
        yield from block.work(lane, clocks["sums"], f"dq{n}", "sums")
        yield max(dk, *more, block.now)
        give_back("q")


def simulate(clocks: dict) -> Block:
    block = Block(clocks)
    for process in (loader(block), noting(block), *(consumer(block, g) for g in range(CONSUMERS))):
        block.start(process)
    block.run()
    return block


LANES = {"loader": "loader (a warp)", "notes": "notes (a warp)", "Q 0": "Q, stage 0", "Q 1": "stage 1",
         "dO 0": "dO, stage 0", "dO 1": "stage 1", "dS 0": "dS, place 0", "dS 1": "place 1",
         "consumer 0": "consumer 0 (4 warps)", "consumer 1": "consumer 1 (4 warps)",
         "tensor cores": "tensor cores"}
ARROWS = [("1", "note", 0, "consumer 0"), ("2", "dout full", 0, "consumer 0"), ("3", "met", 1, "consumer 0"), ("4", "q empty", 1, "loader")]


def draw(clocks: dict) -> str:
    block = simulate(clocks)
    return paint(block, View("A block of the Hopper backward over time", "One block: 128 keys, 64 for each consumer, meet tiles of 64 "
                             "rows; head size 128.", LANES, ("sums",), ARROWS, "dq's fragments to its sums, while s and dk are under way",
                             max(span.end for span in block.spans)))
