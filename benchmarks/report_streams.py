"""The measurements of streams as Markdown, and what of them misses a limit."""

import stream_contenders as readers
import stream_upstream
import streams
from report import RESIDENT_LIMIT, Section, row, verdict

#: Name -> the most that its ratio to the openai SDK may be, by CPU; the wall clock is the upstream's, too.
COST_LIMITS = {
    readers.TEXT: 0.50,
    readers.CHOICES: 0.50,
    readers.COLLECT: 0.50,
    readers.FAILOVER_OPENAI: 1.15,
}
#: Who is held to the limits of delay and of the first content.
_HELD = (readers.TEXT, readers.CHOICES)
DELAY_LIMIT_MS = 1.0
FIRST_LIMIT = 1.05
#: How many times the text that has come in the meantime memory may grow by; and the allocator's part beside it.
TEXT_LIMIT = 1.3

_KIND_WORDS = {
    stream_upstream.USUAL: "chunks as above",
    stream_upstream.PADDED: "chunks that are all padding and comments",
    stream_upstream.LONG: "all of it content",
}


def streaming(costs, cpu_us, delays, firsts, first_ms, memory, absent):
    """Show what reading a stream costs; what is measured is name -> spreads, or kind -> bytes for the memory."""
    missed = []
    lines = [
        *_cost_lines(costs, cpu_us, absent, missed),
        *_lateness_lines(delays, firsts, first_ms, missed),
        *_memory_lines(memory, missed),
    ]
    return Section(lines, missed)


def _cost_lines(costs, cpu_us, absent, missed):
    lines = [
        "## A stream",
        "",
        f"{streams.CHUNKS:,} chunks of {stream_upstream.bytes_of(stream_upstream.USUAL):.0f} bytes at full speed, one HTTP chunk each, from a server of ours in a",
        f"process of its own; 1.00 is the openai SDK, {cpu_us[readers.OPENAI][1].median:.0f} µs of CPU per chunk. Every text was checked.",
        "",
        "| | wall | CPU | CPU per chunk | limit of CPU | |",
        "|---|---|---|---|---|---|",
    ]
    for name in readers.READERS:
        if name in absent:
            lines.append(row(name, absent[name], "", "", "", ""))
            continue
        limit, (wall, cpu) = COST_LIMITS.get(name), costs[name]
        over = limit is not None and cpu.median > limit
        if over:
            missed.append(f"streams, {name}: CPU {cpu.median:.2f}, limit {limit:.2f}")
        shown = "" if limit is None else f"{limit:.2f}"
        cost = f"{cpu_us[name][1].median:.1f} µs"
        lines.append(row(name, wall, cpu, cost, shown, verdict(limit, over)))
    return [*lines, ""]


def _lateness_lines(delays, firsts, first_ms, missed):
    bare = " and ".join(f"{spread.median:.2f} ms" for spread in first_ms[readers.BARE])
    lines = [
        f"A chunk every {stream_upstream.PACE_S * 1e3:g} ms, with the time in it: how much later it was in the reader's hands, the network of",
        "the machine included; and the CPU that it took, a wake-up each. *First content* is counted from the call, as a",
        f"ratio to the bare stream's: of a server that answers after {stream_upstream.PAUSE_S * 1e3:g} ms, and of one that does at once; 1.00 is",
        f"{bare}.",
        "",
        "| | delay, median | delay, p99 | CPU per chunk | first content | at once | limits | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, (middle, high, cpu) in delays.items():
        beyond = _late(name, high, firsts[name])
        missed += [f"streams, {name}: {what}" for what in beyond]
        limits = f"{DELAY_LIMIT_MS:g} ms, {FIRST_LIMIT:.2f}" if name in _HELD else ""
        lines.append(
            row(
                name,
                f"{middle.median:.2f} ms",
                f"{high} ms",
                f"{cpu.median:.0f} µs",
                *firsts[name],
                limits,
                verdict(limits or None, beyond),
            )
        )
    return [*lines, ""]


def _late(name, high, firsts):
    if name not in _HELD:
        return []
    named = zip(("first content", "first content at once"), firsts)
    beyond = [
        f"{what} {spread.median:.2f}, limit {FIRST_LIMIT:.2f}"
        for what, spread in named
        if spread.median > FIRST_LIMIT
    ]
    if high.median > DELAY_LIMIT_MS:
        beyond.append(f"p99 of the delay {high.median:.2f} ms, limit {DELAY_LIMIT_MS:g} ms")
    return beyond


def _memory_lines(memory, missed):
    lines = [
        "Resident memory, in MB, of a process that reads one long stream by `chunk.text`, since a tenth of it had come. A",
        f"stream keeps its text for the reply; *limit* is {TEXT_LIMIT:g} times the text that came since, and {RESIDENT_LIMIT >> 20} MiB of the",
        "allocator's. *At most* is while the reply is made.",
        "",
        "| | on the wire | text | grown | with its reply | at most | limit | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, (wire, text, grown, peak, kept) in memory.items():
        limit = TEXT_LIMIT * text + RESIDENT_LIMIT
        over = [
            f"streams, {_KIND_WORDS[kind]}: {size / 1e6:.1f} MB {what}, limit {limit / 1e6:.1f}"
            for what, size in (("grown", grown), ("with its reply", kept))
            if size > limit
        ]
        missed += over
        sizes = (f"{size / 1e6:.1f}" for size in (wire, text, grown, kept, peak, limit))
        lines.append(row(_KIND_WORDS[kind], *sizes, verdict(1, over)))
    return [*lines, ""]
