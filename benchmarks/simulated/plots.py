"""The runs as pictures: one for each outage, and one of who knows when."""

#: What is drawn of each way of sharing.
_LINES = {
    "alone": ("#333333", "-", "each process alone"),
    "sqlite": ("#1f77b4", "-", "shared on each host (SQLite)"),
    "redis": ("#d95f02", "--", "shared in the fleet (Redis)"),
}
_TROUBLED, _OTHERS = "#d95f02", "#9aa5b1"
_SHADE = "#f3e9dc"
_SIZE_IN, _DPI = (8.0, 7.2), 90


def plotter():
    """Return matplotlib's pyplot; None where it is not installed."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    return plt


def outage(plt, by_sharing, path):
    """Draw one outage: the load where processes are alone, amplification and failed calls for all ways of sharing."""
    alone = by_sharing["alone"]
    scenario = alone.scenario
    figure, (load, amplification, failed) = plt.subplots(
        3, 1, sharex=True, figsize=_SIZE_IN, gridspec_kw={"height_ratios": (2.2, 1.2, 1.2)}
    )
    seconds = range(1, alone.until)
    times = [second + 0.5 - alone.begins for second in seconds]
    _draw_load(load, alone, seconds, times)
    for sharing, figures in by_sharing.items():
        color, style, label = _LINES[sharing]
        amplification.plot(
            times, [figures.amplification(s) for s in seconds], style, color=color, label=label
        )
        share = [100.0 * figures.run.failed[s] / figures.run.calls[s] for s in seconds]
        failed.plot(times, share, style, color=color, label=label)
    figure.suptitle(_capitalized(scenario.title), x=0.01, ha="left", fontsize=11)
    _name(load, "calls per second", "Load on each endpoint, alone")
    _name(amplification, "attempts per call", "Amplification")
    _name(failed, "% of calls", "Failed calls, by when they began")
    amplification.axhline(1.2, color="#888888", linewidth=0.8, linestyle=":")
    amplification.set_ylim(
        bottom=min(0.98, amplification.get_ylim()[0]), top=max(1.22, amplification.get_ylim()[1])
    )
    failed.set_ylim(-2.0, max(10.0, failed.get_ylim()[1]))
    if len(by_sharing) > 1:
        _legend(amplification)
    for axes in (load, amplification, failed):
        for trouble in scenario.troubles:
            axes.axvspan(
                trouble.begins - alone.begins,
                trouble.ends - alone.begins,
                color=_SHADE,
                zorder=0,
                linewidth=0,
            )
        axes.set_xlim(times[0], times[-1])
    failed.set_xlabel("seconds since the trouble began (shaded while it lasts)")
    _save(plt, figure, path)


def _draw_load(axes, figures, seconds, times):
    for nth in reversed(range(len(figures.run.names))):
        troubled = nth == 0 and not figures.scenario.everywhere
        label = "the endpoint in trouble" if troubled else "the other four" if nth == 1 else None
        if figures.scenario.everywhere:
            label = "each of the five" if nth == 0 else None
        loads = [figures.run.load[nth][second] * figures.scale for second in seconds]
        axes.plot(
            times,
            loads,
            color=_TROUBLED if troubled else _OTHERS,
            linewidth=1.8 if troubled else 1.1,
            label=label,
        )
    axes.axhline(
        figures.steady * figures.scale, color="#888888", linewidth=0.8, linestyle=":", label="steady"
    )
    axes.axhline(
        1.3 * figures.steady * figures.scale,
        color="#888888",
        linewidth=0.8,
        linestyle="--",
        label="1.3 x steady",
    )
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
    _legend(axes)


def _capitalized(title):
    return (title[0].upper() + title[1:]).replace("`", "")


def _legend(axes):
    """Name the lines beside the title, where there are none."""
    axes.legend(
        frameon=False, loc="lower right", bbox_to_anchor=(1.01, 0.97), fontsize=8, ncol=4, columnspacing=1.0
    )


def knowledge(plt, panels, path):
    """Draw what share of the clients knows, over time; `panels` are (title, [(label, figures)])."""
    figure, all_axes = plt.subplots(1, len(panels), sharey=True, figsize=(9.0, 3.8))
    colors = ("#333333", "#d95f02", "#1f77b4", "#7aa974")
    for axes, (title, lines) in zip(all_axes, panels):
        for color, (label, figures) in zip(colors, lines):
            known = sorted(s for s in figures.run.knew_s if s is not None)
            shares = [100.0 * (nth + 1) / figures.run.clients for nth in range(len(known))]
            axes.step([0.0, *known], [0.0, *shares], where="post", color=color, label=label)
        axes.axvline(7.0, color="#888888", linewidth=0.8, linestyle=":")
        axes.set_xlim(0, 20)
        axes.set_xticks(range(0, 21, 5))
        axes.set_ylim(0, 102)
        axes.set_xlabel("seconds since the trouble began (dotted: limit of 7 s)", fontsize=9)
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(frameon=False, loc="lower right", fontsize=9)
    all_axes[0].set_ylabel("% of clients that know of it")
    _save(plt, figure, path)


def _name(axes, unit, title):
    axes.set_ylabel(unit)
    axes.set_title(title, loc="left", fontsize=10)


def _save(plt, figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI)
    plt.close(figure)
