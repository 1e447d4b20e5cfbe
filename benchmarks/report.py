"""The measurements as Markdown, and what of them misses a limit."""

import datetime as dt
import os
import platform
from importlib import metadata
from typing import NamedTuple

import choosing
import contenders
import creation
import imports

_LIBRARIES = ("syncfailover", "requests", "urllib3", "tenacity", "elastic-transport", "openai", "litellm")
#: Name -> the most that its ratio to the baseline may be, wall and CPU.
CALL_LIMITS = {contenders.CHAT: 0.60, contenders.SESSION: 1.10}
IMPORT_LIMIT = 1.10
#: Milliseconds that making a client may take, with its endpoints.
CREATION_LIMIT_MS = 1.0
CHOOSING_LIMIT_US = 8.0
#: The most that a call through `contrib.openai` may be of one through the bare SDK.
SDK_LIMIT = 1.15
#: How many times the time with few endpoints the time with many may be.
GROWTH_LIMIT = 3.0
#: The allocator takes and returns memory by the arena: 256 KiB before Python 3.10, 1 MiB since.
RESIDENT_LIMIT = 1 << 20


class Section(NamedTuple):
    """A part of the report, and what in it is beyond its limit."""

    lines: list
    missed: list


def head(command):
    """Say when, on what and how it was measured."""
    machine = f"{platform.system()} {platform.machine()} · {os.cpu_count()} cores"
    return [
        "# Measured",
        "",
        f"{dt.datetime.now(dt.timezone.utc):%Y-%m-%d} · {platform.python_implementation()} {platform.python_version()} · {machine}",
        "",
        " · ".join(f"{name} {version}" for name, version in _versions()),
        "",
        f"    {command}",
        "",
        "Contenders take turns in small blocks, each in its own process; a ratio is taken within its round, and the",
        "table shows the median of all rounds with the middle half of them in brackets. Smaller is better, unless a",
        "part says otherwise.",
        "",
    ]


def calls(ratios, through_sdk, baseline_ms, absent, served):
    """Show what a call costs; `through_sdk` is what one through `contrib.openai` is of one through the bare SDK."""
    lines = [
        "## A call",
        "",
        "One thread against a local nginx that answers with a fixed chat completion over kept-alive connections;",
        f"1.00 is {baseline_ms[0].median:.2f} ms of wall clock and {baseline_ms[1].median:.2f} ms of CPU.",
        "`client.chat` has three endpoints, and monitor, breaker, metrics, cost and reply object are included.",
        "",
        "| | wall | CPU | limit | |",
        "|---|---|---|---|---|",
    ]
    missed = []
    for name in contenders.CONTENDERS:
        if name in absent:
            lines.append(f"| {name} | {absent[name]} | | | |")
            continue
        limit = CALL_LIMITS.get(name)
        over = over_limit(limit, ratios[name])
        missed += [f"{name}: {what}" for what in over]
        lines.append(row(name, *ratios[name], "" if limit is None else f"{limit:.2f}", verdict(limit, over)))
    if through_sdk:
        over = over_limit(SDK_LIMIT, through_sdk)
        missed += [f"{contenders.FAILOVER_OPENAI}, to the openai SDK: {what}" for what in over]
        lines += [
            "",
            f"Through `contrib.openai` a call is {through_sdk[0]} of one through the bare SDK by wall clock and",
            f"{through_sdk[1]} by CPU, limit {SDK_LIMIT:.2f}: {verdict(SDK_LIMIT, over)}.",
        ]
    spread_over = ", ".join(str(count) for count in served.get(contenders.CHAT, ()))
    lines += [
        "",
        "Every reply was checked for its text, and in a separate pass the upstream's log for one request per call;",
        f"`client.chat` spread them over its three endpoints (weights 3, 2, 1) as {spread_over}.",
        "",
    ]
    return Section(lines, missed)


def importing(ratios, baseline_ms, absent):
    """Show what an import costs."""
    lines = [
        "## An import",
        "",
        f"Fresh interpreters, the import alone; 1.00 is `import requests`, {baseline_ms[0].median:.0f} ms.",
        "`import syncfailover` loads what it exports on first use, so the row below it is what the first use of a",
        "client brings the sum to, `requests` included; it has no limit of its own.",
        "",
        "| | wall | CPU | limit | |",
        "|---|---|---|---|---|",
    ]
    missed = []
    for name in imports.NAMES:
        if name in absent:
            lines.append(f"| `import {name}` | {absent[name]} | | | |")
            continue
        limit = IMPORT_LIMIT if name == "syncfailover" else None
        over = over_limit(limit, ratios[name])
        missed += [f"import {name}: {what}" for what in over]
        shown = "" if limit is None else f"{limit:.2f}"
        lines.append(row(f"`import {name}`", *ratios[name], shown, verdict(limit, over)))
    return Section([*lines, ""], missed)


def creating(millis, ratios):
    """Show what making a client costs."""
    lines = [
        "## Making a client",
        "",
        f"The milliseconds of wall clock and of CPU that making one takes, and its ratio to `{creation.BASELINE}`. Nothing",
        "is opened, sent or started by it.",
        "",
        "| | wall, ms | CPU, ms | ratio, wall | limit, ms | |",
        "|---|---|---|---|---|---|",
    ]
    missed = []
    for name, spreads in millis.items():
        limit = CREATION_LIMIT_MS if name in (creation.CLIENT, creation.SHARING) else None
        over = over_limit(limit, spreads)
        missed += [f"making {name}: {what}" for what in over]
        wall, cpu = (f"{spread.median:.3f}" for spread in spreads)
        shown = "" if limit is None else f"{limit:.2f}"
        lines.append(row(name, wall, cpu, ratios[name][0], shown, verdict(limit, over)))
    return Section([*lines, ""], missed)


def choices(micros, ratios):
    """Show what choosing an endpoint costs."""
    few, many = choosing.FEW, choosing.MANY
    measure = micros[choosing.YARDSTICK, 0][0].median
    lines = [
        "## Choosing an endpoint",
        "",
        "One choice with its report, in µs; in brackets by the public `registry.acquire()`. The limits are",
        f"{CHOOSING_LIMIT_US:.0f} µs with {few} endpoints, and {GROWTH_LIMIT:.0f} times its own with {many:,}. The yardstick, 10 calls of",
        f"a method that counts in a dictionary, took {measure:.2f} µs.",
        "",
        f"| balancer | {few} endpoints | in yardsticks | {many:,} endpoints | growth | |",
        "|---|---|---|---|---|---|",
    ]
    missed = []
    for label, count in micros:
        if count != few:
            continue
        (one, one_public), (all_of, all_public) = micros[label, few], micros[label, many]
        growth = all_of.median / one.median
        over = [
            f"choosing, {label}, {n:,} endpoints: {time.median:.1f} µs, limit {limit:.1f} µs"
            for n, time, limit in (
                (few, one, CHOOSING_LIMIT_US),
                (few, one_public, CHOOSING_LIMIT_US),
                (many, all_of, GROWTH_LIMIT * one.median),
                (many, all_public, GROWTH_LIMIT * one_public.median),
            )
            if time.median > limit
        ]
        missed += over
        lines.append(
            row(
                label,
                f"{one.median:.1f} ({one_public.median:.1f})",
                f"{ratios[label, few][0].median:.1f}",
                f"{all_of.median:.1f} ({all_public.median:.1f})",
                f"x{growth:.1f}",
                verdict(1, over),
            )
        )
    return Section([*lines, ""], missed)


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def over_limit(limit, spreads):
    """Say which of wall and CPU are beyond the limit."""
    named = zip(("wall", "CPU"), spreads)
    return [
        f"{name} {spread.median:.2f}, limit {limit:.2f}"
        for name, spread in named
        if limit is not None and spread.median > limit
    ]


def verdict(limit, over):
    return "" if limit is None else "missed" if over else "kept"


def _versions():
    for name in _LIBRARIES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed"
