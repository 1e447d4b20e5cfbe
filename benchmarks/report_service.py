"""The measurements of a client in service, as Markdown: threads, options, idling, the drill; and what misses a limit."""

from typing import NamedTuple

import contenders
import drill
import drilled
import idle
import options
import threads
from endpoint import SERVICE_S
from report import RESIDENT_LIMIT, Section, over_limit, row, verdict

#: The least that `client.chat` may reach of the baseline's throughput.
THREADS_LEAST = 1.60
#: Name -> the most that the ratio to a plain client may be.
OPTION_LIMITS = {
    options.SHARED: 1.03,
    options.HEDGE_READY: 1.02,
    options.ALL_ON: 1.05,
}
IDLE_LIMIT = 0.005
#: A leak of one small object per probe would be 8,000 blocks, and more than this if only one probe in eight leaked.
BLOCKS_LIMIT = 1_000
#: What a breaker needs to open, and the time after which it lets one through again.
FAILURES_TO_OPEN, RECOVERY_S = 3, 30.0
#: A 429 does not open the breaker: it names the time after which A may be asked again.
RECOVERIES_S = {"429": 1.0}
#: Fault -> the least that ours may keep of its throughput: as it comes, and with hedging.
KEPT_LEAST = {
    "kill": (0.95, 0.95),
    "503": (0.95, 0.95),
    "429": (0.95, 0.95),
    "hang": (0.60, 0.90),
    "blackhole": (0.60, 0.90),
}


class _Limits(NamedTuple):
    """What ours has to keep in one drill."""

    kept: float
    slow: int
    at_a: int


_FAULT_WORDS = {
    "kill": "A is killed: its connections are reset, new ones are refused",
    "503": "A answers 503 at once, health checks included",
    "429": "A answers 429 at once and asks for a second of rest, health checks included",
    "hang": "A accepts and never answers, health checks included",
    "blackhole": "A is off the network: nothing connects, nothing is answered",
}


def sharing(ratios, per_second, discards, absent):
    """Show what threads get out of one client; everything here is (number of threads) -> name -> ..."""
    lines = [
        "## Threads that share a client",
        "",
        "Calls per second of all threads together, against the same nginx, as a ratio to a shared `requests.Session`:",
        "**larger is better** here. A discard is a line `connection pool is full` of urllib3, all rounds together.",
        "",
    ]
    missed = []
    for count in threads.COUNTS:
        base = per_second[count][contenders.BASELINE][0].median
        lines += [
            f"{count} threads; 1.00 is {base:,.0f} calls per second.",
            "",
            "| | wall | CPU | discards | limit | |",
            "|---|---|---|---|---|---|",
        ]
        for name in threads.NAMES:
            if name in absent:
                lines.append(row(name, absent[name], "", "", "", ""))
                continue
            beyond = _sharing_missed(name, ratios[count][name], discards[count][name])
            missed += [f"{count} threads, {name}: {what}" for what in beyond]
            limit = f">= {THREADS_LEAST:.2f}, 0" if name == contenders.CHAT else ""
            lines.append(
                row(name, *ratios[count][name], discards[count][name], limit, verdict(limit or None, beyond))
            )
        lines.append("")
    return Section(lines, missed)


def _sharing_missed(name, ratios, discards):
    if name != contenders.CHAT:
        return []
    beyond = [f"{discards} connections discarded, limit 0"] if discards else []
    if ratios[0].median < THREADS_LEAST:
        beyond.append(f"throughput {ratios[0].median:.2f}, at least {THREADS_LEAST:.2f}")
    return beyond


def switched_on(ratios, plain_ms):
    """Show what the options of a client cost."""
    lines = [
        "## Everything switched on",
        "",
        f"A plain `client.chat` with three endpoints, no prices and no listeners is 1.00, {plain_ms[0].median:.2f} ms; the row below",
        "it measures the same a second time and shows what the method cannot tell apart. Everything is: `queue_timeout`,",
        "`budget_usd`, prices, `max_concurrency` of every endpoint, a listener on every event, an `affinity` per call.",
        "Where `hedge_after` fires, up to one call in twenty is made twice, and its timer's thread wakes within every",
        "5 ms; that is no cost of being ready, and at a model's seconds instead of these fractions of a millisecond it is none.",
        "",
        "| | wall | CPU | limit | |",
        "|---|---|---|---|---|",
    ]
    missed = []
    for name in options.WITH_OPTIONS:
        limit = OPTION_LIMITS.get(name)
        over = over_limit(limit, ratios[name])
        missed += [f"options, {name}: {what}" for what in over]
        lines.append(row(name, *ratios[name], "" if limit is None else f"{limit:.2f}", verdict(limit, over)))
    return Section([*lines, ""], missed)


def idling(share, seconds, memory, probes):
    """Show what a client costs that nobody calls."""
    (resident, blocks), (resident_then, blocks_then) = memory
    more_resident, more_blocks = resident_then - resident, blocks_then - blocks
    missed = []
    if share > IDLE_LIMIT:
        missed.append(f"idle: {share:.2%} of a core, limit {IDLE_LIMIT:.2%}")
    if more_resident > RESIDENT_LIMIT:
        missed.append(
            f"idle: {more_resident / 1024:,.0f} KiB more resident, limit {RESIDENT_LIMIT / 1024:,.0f}"
        )
    if more_blocks > BLOCKS_LIMIT:
        missed.append(f"idle: {more_blocks:,} blocks more, limit {BLOCKS_LIMIT:,}")
    words = [
        row("CPU, share of one core", f"{share:.3%}", f"{IDLE_LIMIT:.1%}", verdict(1, share > IDLE_LIMIT)),
        row(
            "resident memory, growth",
            f"{more_resident / 1024:+,.0f} KiB of {resident / 1024:,.0f}",
            f"{RESIDENT_LIMIT / 1024:,.0f} KiB",
            verdict(1, more_resident > RESIDENT_LIMIT),
        ),
        row(
            "allocated blocks, growth",
            f"{more_blocks:+,} of {blocks:,}",
            f"{BLOCKS_LIMIT:,}",
            verdict(1, more_blocks > BLOCKS_LIMIT),
        ),
    ]
    lines = [
        "## A client that nobody calls",
        "",
        f"CPU over {seconds:.0f} s, three endpoints probed every {idle.INTERVAL_S:g} s; memory between probe {probes[0]:,} and probe {probes[1]:,} of",
        "a client that probes as fast as it can, counted by the upstream. One leaked object per probe",
        f"would be {probes[1] - probes[0]:,} blocks more.",
        "",
        "| | | limit | |",
        "|---|---|---|---|",
        *words,
        "",
    ]
    return Section(lines, missed)


def drilling(scores, times):
    """Show how everybody fared while one of three endpoints was at fault."""
    lines = [
        "## The drill",
        "",
        f"{drill.THREADS} threads call back to back for {times.end:g} s; of three endpoints that take {SERVICE_S * 1e3:g} ms for an answer, A is at",
        f"fault from second {times.fault:g} to {times.mended:g}. Everybody has {drilled.ATTEMPT_S:g} s for an attempt; the openai SDK knows A alone.",
        "*Kept* is the calls per second during the fault against those before. *At A* is what was sent to A",
        "meanwhile, as A saw it; where it could not see, the connections that were tried; in brackets what a ledger of",
        "attempts says. *Back* is how long after its recovery A gave its first good answer.",
        "",
    ]
    missed = []
    for fault in dict.fromkeys(fault for fault, _name in scores):
        lines += [
            f"{_FAULT_WORDS[fault]}:",
            "",
            "| | calls/s before | kept | failed calls | above 1 s | slowest | at A | back | limits | |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for name in (name for at, name in scores if at == fault):
            score = scores[fault, name]
            if isinstance(score, drill.Missing):
                lines.append(row(name, score.why, *[""] * 8))
                continue
            limits = _drill_limits(name, fault, times)
            beyond = [what for kept, what in _held(score, limits) if not kept] if limits else []
            missed += [f"drill, {fault}, {name}: {what}" for what in beyond]
            lines.append(
                row(
                    name,
                    f"{score.before_per_s:,.0f}",
                    f"{score.kept:.2f}",
                    score.failed,
                    score.slow,
                    f"{score.slowest_s:.2f} s",
                    score.at_a if score.by_ledger is None else f"{score.at_a} ({score.by_ledger})",
                    "never" if score.back_s is None else f"{score.back_s:.1f} s",
                    f"{limits.kept:.2f}, 0, {limits.slow}, {limits.at_a}" if limits else "",
                    verdict(limits, beyond),
                )
            )
        lines.append("")
    lines += [
        "The limits are for: kept, failed calls, calls above 1 s, at A; the larger of the two numbers at A counts. At a silent A",
        "that last one is missed by arithmetic: nothing shows before the first of eight threads has waited for its 2 s.",
        "",
    ]
    return Section(lines, missed)


def _drill_limits(name, fault, times):
    if name not in (drilled.PLAIN, drilled.HEDGED):
        return None
    hedged = name == drilled.HEDGED
    periods = int((times.mended - times.fault) / RECOVERIES_S.get(fault, RECOVERY_S)) + 1
    return _Limits(KEPT_LEAST[fault][hedged], 0 if hedged else drill.THREADS, FAILURES_TO_OPEN + periods)


def _held(score, limits):
    """Yield whether each limit is kept, and what was measured against it."""
    yield score.failed == 0, f"{score.failed} failed calls, limit 0"
    yield score.kept >= limits.kept, f"{score.kept:.2f} of the throughput kept, at least {limits.kept:.2f}"
    yield score.slow <= limits.slow, f"{score.slow} calls above 1 s, limit {limits.slow}"
    at_a = max(score.at_a, score.by_ledger or 0)
    yield at_a <= limits.at_a, f"{at_a} attempts at A, limit {limits.at_a}"
