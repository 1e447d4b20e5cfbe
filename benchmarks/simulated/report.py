"""The runs as Markdown: what each outage came to, and whether the limits are kept."""

from statistics import mean

from .limits import measured
from .scenarios import ALL, ENDPOINTS, FLEET, OUTAGES, RATES
from .sharings import OF_A_HOST, SHARINGS

_WHERE = {name: sharing.short for name, sharing in SHARINGS.items()}
_HOSTS = 10
_INTERVAL_S = 2.0
_SETTLED_S, _AFTER_S = 6.0, 46.0


def everything(done, pictures):
    """Return the lines for all that was run.

    Args:
        done: `Figures` by name of scenario and sharing.
        pictures: path of a picture by name of scenario.

    """
    return [
        *_limits(done),
        *_outages(done, pictures),
        *_rates(done),
        *_detection(done, pictures),
        *_probing(done),
    ]


def _limits(done):
    rows = [
        (row.limit.what, row.scenario, f"{row.limit.most:g}", *(row.shown(sharing) for sharing in _WHERE))
        for row in measured(done)
    ]
    if not rows:
        return []
    note = (
        "**Bold** is beyond the limit; in brackets is what is beyond it by no more than chance makes of a sample of this size "
        "(three standard deviations of a second). What was not run is left empty."
    )
    return ["### The limits", "", note, "", *_table(["", "scenario", "limit", *_WHERE.values()], rows), ""]


def _outages(done, pictures):
    lines = []
    for scenario in OUTAGES:
        runs = [
            (sharing, done[scenario.name, sharing]) for sharing in _WHERE if (scenario.name, sharing) in done
        ]
        if runs:
            lines += [
                f"### {scenario.name}: {scenario.title}",
                "",
                *_picture(pictures, scenario.name),
                *_outage(runs),
                "",
            ]
    return lines


def _picture(pictures, name):
    return [f"![{name}]({pictures[name]})", ""] if name in pictures else []


def _outage(runs):
    first = runs[0][1]
    rows = [
        ("clients simulated, each for so many", lambda f: f"{f.run.clients:,}, {f.scale:g}"),
        ("calls during the trouble, in the whole fleet", lambda f: f"{f.calls * f.scale:,.0f}"),
        ("of these failed; and of the later ones", _failed),
        (
            "attempts per call: mean, and the worst second",
            lambda f: f"{f.mean_amplification:.3f}; {f.peak_amplification:.2f}",
        ),
        (
            "load of any endpoint by its steady one: most during, most after",
            lambda f: f"{f.peak_during:.2f}; {f.peak_after:.2f}",
        ),
        ("a client knows after: median, 99 %, most", lambda f: _seconds(f.knew_s)),
        ("clients that never notice", lambda f: f"{f.never_knew:.0%}"),
        ("attempts of a client that meet it before: median, 99 %, most", lambda f: _counts(f.met)),
        (
            "the endpoint has 90 % of its load again after",
            lambda f: "not yet" if f.returned_s is None else f"{f.returned_s} s",
        ),
        ("a call takes: median, 99 %, most", lambda f: _seconds(f.took_s, 2)),
        (
            "calls that an endpoint turns away for want of capacity",
            lambda f: f"{sum(map(sum, f.run.turned_away)) * f.scale:,.0f}",
        ),
        ("probes per second that an endpoint sees", lambda f: f"{f.probes_per_s:,.1f}"),
    ]
    steady = (
        f"Steady: {first.steady * first.scale:,.0f} calls per second to each of the {ENDPOINTS} endpoints."
    )
    return [
        steady,
        "",
        *_table(
            ["", *(_WHERE[sharing] for sharing, _ in runs)],
            [(what, *(show(f) for _, f in runs)) for what, show in rows],
        ),
    ]


def _failed(figures):
    during, after = figures.failed
    return f"{during / figures.calls:.2%}; {after * figures.scale:,.0f}"


def _rates(done):
    runs = [done[s.name, "alone"] for s in RATES if (s.name, "alone") in done]
    if not runs:
        return []
    rows = [
        (
            f.scenario.title,
            f"{f.run.clients:,}",
            f"{f.mean_amplification:.3f}; {f.peak_amplification:.2f}",
            f"{f.peak_during:.2f}; {f.peak_after:.2f}",
            _seconds(f.knew_s),
            _counts(f.met),
            f"{f.failed[0] / f.calls:.2%}",
        )
        for f in runs
    ]
    head = [
        "",
        "clients simulated",
        "attempts per call: mean; worst second",
        "most load: during; after",
        "a client knows after",
        "attempts that meet it",
        "failed",
    ]
    return [
        f"### {FLEET:,} clients that all call equally often",
        "",
        "Processes alone; an endpoint refuses connections. Of spreads: median, 99 %, most.",
        "",
        *_table(head, rows),
        "",
    ]


def _detection(done, pictures):
    names = ("probes-alone", "probes-alone-silent", "traffic-alone", "traffic-alone-silent")
    runs = [done[name, "alone"] for name in names if (name, "alone") in done]
    if not runs:
        return []
    rows = [
        (
            "calls without probes" if any(f.run.calls) else "probes without calls",
            f.scenario.title,
            f"{f.run.clients:,}",
            _seconds(f.knew_s),
            _counts(f.met) if any(f.run.calls) else "",
        )
        for f in runs
    ]
    head = [
        "known by",
        "the endpoint",
        "clients simulated",
        "after: median, 99 %, most",
        "attempts of a client that met it",
    ]
    return [
        "### Who knows when",
        "",
        *_picture(pictures, "knowledge"),
        "One endpoint of five, processes alone.",
        "",
        *_table(head, rows),
        "",
    ]


def _probing(done):
    runs = [(sharing, done["probing", sharing].run) for sharing in _WHERE if ("probing", sharing) in done]
    if not runs:
        return []
    rows = [(_WHERE[sharing], *_probed(sharing, run)) for sharing, run in runs]
    head = [
        "",
        "probes per second that an endpoint sees",
        "per endpoint, interval and",
        "probers killed: longest time unprobed",
    ]
    return [
        f"### Probes of {ALL['probing'].fleet} processes on {_HOSTS} hosts of {OF_A_HOST}",
        "",
        f"An interval is {_INTERVAL_S:g} s. After 40 s every process that probes for others is killed, and gives nothing back.",
        "",
        *_table(head, rows),
        "",
    ]


def _probed(sharing, run):
    per_s = mean(sum(probes[20:40]) for probes in run.probes) / 20.0
    if sharing == "alone":
        return f"{per_s:.1f}", f"process: {per_s * _INTERVAL_S / run.clients:.2f}", ""
    gap_s, longest_s = probe_gaps(run)
    whom = "host" if sharing == "sqlite" else "fleet"
    return f"{per_s:.2f}", f"{whom}: {_INTERVAL_S / gap_s:.2f}", f"{longest_s:.1f} s"


def probe_gaps(run):
    """Return the mean seconds between two probes in quiet times, and the most where a prober was killed."""
    killed_at = run.scenario.killed_at
    pairs = [pair for times in run.probed_at for pair in zip(times, times[1:])]
    quiet = [b - a for a, b in pairs if a >= _SETTLED_S and not killed_at - _INTERVAL_S <= a < _AFTER_S]
    return mean(quiet), max(b - a for a, b in pairs if a < killed_at <= b)


def _table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def _seconds(spread, digits=1):
    if spread is None:
        return "never"
    return ", ".join(f"{value:.{digits}f}" for value in spread) + " s"


def _counts(spread):
    return "" if spread is None else ", ".join(f"{value:,}" for value in spread)
