"""Simulate a fleet of 10,000 clients and its outages, around the real policy: python benchmarks/simulate.py.

The results of a whole run go to docs/simulation.md and docs/simulation/; a quick or partial one is only shown.
"""

import argparse
import multiprocessing
import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(
    1, str(Path(__file__).resolve().parent.parent)
)  # the checkout, also where nothing is installed

from simulated import fleet, plots, report, scenarios
from simulated.figures import Figures
from simulated.sharings import SHARINGS

_DOCS = Path(__file__).resolve().parent.parent / "docs"
_PAGE, _PICTURES = _DOCS / "simulation.md", _DOCS / "simulation"
#: What the page has between these lines is written by a whole run.
_FIRST, _LAST = "<!-- measured -->", "<!-- end of measured -->"
#: Of the clients of a run, a quick one takes one in so many.
_QUICK = 50


def main(arguments):
    """Run, show and write; return the exit code."""
    chosen = _parser().parse_args(arguments)
    jobs = [(scenario, sharing, chosen.seed) for scenario, sharing in _chosen(chosen)]
    began = time.monotonic()
    done = _run(jobs, chosen.processes)
    whole = not (chosen.quick or chosen.only or chosen.sharing or chosen.one_in)
    drawn = _draw(done, _PICTURES if whole else chosen.pictures)
    head = _head(" ".join(["python benchmarks/simulate.py", *arguments]), chosen, time.monotonic() - began)
    text = "\n".join([*head, *report.everything(done, drawn)])
    sys.stdout.write(text + "\n")
    if whole and drawn:
        before, rest = _PAGE.read_text(encoding="utf-8").split(_FIRST)
        after = rest.split(_LAST)[1]
        _PAGE.write_text(f"{before}{_FIRST}\n\n{text}\n{_LAST}{after}", encoding="utf-8")
    return 0


def _chosen(chosen):
    """Return what is to be run: pairs of scenario and sharing, those that take longest first."""
    for scenario in scenarios.ALL.values():
        if chosen.only and not any(scenario.name.startswith(name) for name in chosen.only):
            continue
        fewer = _QUICK if chosen.quick else chosen.fewer
        one_in = chosen.one_in or scenario.one_in * (fewer if scenario.fleet == scenarios.FLEET else 1)
        for sharing in SHARINGS if scenario.name in scenarios.SHARED else ("alone",):
            if not chosen.sharing or sharing in chosen.sharing:
                yield scenario._replace(one_in=one_in), sharing


def _run(jobs, processes):
    """Run all, each in one of so many processes; return `Figures` by name of scenario and sharing."""
    done = {}
    jobs.sort(key=lambda job: job[0].everywhere, reverse=True)  # these take longest
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for run in pool.imap_unordered(_one, jobs):
            _say(f"{run.scenario.name}, {run.sharing}: {sum(run.calls):,} calls of {run.clients:,} clients")
            done[run.scenario.name, run.sharing] = Figures(run)
    return done


def _one(job):
    return fleet.run(*job)


def _draw(done, folder):
    """Draw what there is to draw; return the paths, relative to the page, by name."""
    plt = plots.plotter()
    if plt is None or folder is None:
        _say("no pictures: " + ("matplotlib is not installed" if plt is None else "use --pictures FOLDER"))
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for scenario in scenarios.OUTAGES:
        by_sharing = {s: done[scenario.name, s] for s in SHARINGS if (scenario.name, s) in done}
        if "alone" in by_sharing:
            plots.outage(plt, by_sharing, folder / f"{scenario.name}.png")
            drawn[scenario.name] = f"{folder.name}/{scenario.name}.png"
    panels = [(title, _lines(done, lines)) for title, lines in scenarios.KNOWLEDGE]
    if all(lines for _, lines in panels):
        plots.knowledge(plt, panels, folder / "knowledge.png")
        drawn["knowledge"] = f"{folder.name}/knowledge.png"
    return drawn


def _lines(done, lines):
    return [(label, done[run]) for label, run in lines if run in done]


def _head(command, chosen, took_s):
    machine = f"{platform.python_implementation()} {platform.python_version()} · {os.cpu_count()} cores"
    return [f"    {command}", "", f"Seed {chosen.seed} · {machine} · {took_s / 60:.1f} minutes.", ""]


def _say(line):
    sys.stderr.write(line + "\n")


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a fiftieth of the clients; for a look, not for a number"
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="scenarios that begin so; may be repeated"
    )
    parser.add_argument("--sharing", action="append", choices=SHARINGS, help="only this; may be repeated")
    parser.add_argument(
        "--one-in", type=int, metavar="N", help="simulate one client in so many; 1 for all of them"
    )
    parser.add_argument(
        "--fewer", type=int, default=1, metavar="N", help="simulate so many times fewer clients"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="to run in")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="where a partial run draws")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
