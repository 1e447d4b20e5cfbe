"""Measure syncfailover against what one would use instead: python benchmarks/run.py.

The results of a whole run go to benchmarks/RESULTS.md; a quick or partial one is only shown.
"""

import argparse
import os
import sys
import tempfile

import measure

sys.path.insert(1, str(measure.HERE.parent))  # the checkout, also where nothing is installed

import choosing
import contenders
import creation
import drill
import idle
import imports
import options
import report
import report_service
import report_streams
import stream_contenders
import stream_upstream
import streams
import threads
from upstream import NginxMissing, Upstream

_PARTS = ("calls", "imports", "creation", "choosing", "threads", "options", "idle", "streams", "drill")
_STREAMS = 21, streams.CHUNKS, 400, streams.MEMORY_BYTES
_DRILL = drill.ALL_FAULTS, drill.FULL
_QUICK_DRILL = ("kill", "hang"), drill.QUICK
_RESULTS = measure.HERE / "RESULTS.md"


def main(arguments):
    """Measure, show and write; return the exit code."""
    chosen = _parser().parse_args(arguments)
    parts = chosen.only or _PARTS
    _leave_environment_behind()
    measured = {
        "calls": lambda quick: _calls(*(12, 20) if quick else (120, 50), names=chosen.contender),
        "imports": lambda quick: _imports(7 if quick else 41),
        "creation": lambda quick: _creation(7 if quick else 41),
        "choosing": lambda quick: _choosing(7 if quick else 41),
        "threads": lambda quick: _threads(5 if quick else 31),
        "options": lambda quick: _options(*(12, 20) if quick else (240, 50)),
        "idle": lambda quick: _idle(*(10, 500, 2_000) if quick else (60, idle.SETTLED, idle.PROBES)),
        "streams": lambda quick: _streams(*(5, 1_000, 100, 10_000_000) if quick else _STREAMS),
        "drill": lambda quick: _drill(*(_QUICK_DRILL if quick else _DRILL)),
    }
    try:
        sections = [measured[part](chosen.quick) for part in _PARTS if part in parts]
    except NginxMissing as error:
        sys.stderr.write(f"{error}\n")
        return 2
    command = " ".join(["python benchmarks/run.py", *arguments])
    text = "\n".join([*report.head(command), *(line for section in sections for line in section.lines)])
    sys.stdout.write(text)
    if not (chosen.quick or chosen.only or chosen.contender):
        _RESULTS.write_text(text, encoding="utf-8")
    missed = [line for section in sections for line in section.missed]
    for line in missed:
        sys.stderr.write(f"limit missed: {line}\n")
    return 1 if missed and chosen.check else 0


def _calls(rounds, block, names=None):
    names = [contenders.BASELINE, *names] if names else list(contenders.CONTENDERS)
    _say("a call: checking that each call is one request ...")
    with Upstream(logged=True) as upstream:
        served = measure.verify(upstream, names, block)
    _say(f"a call: {rounds} rounds of {block} calls each ...")
    with Upstream() as upstream:
        workers, absent = measure.workers_for(names, upstream.origins)
        try:
            blocks = {worker.name: lambda worker=worker: worker.run(block) for worker in workers}
            measure.rounds_of(blocks, 1)  # connections are opened, caches filled
            results = measure.rounds_of(blocks, rounds)
        finally:
            for worker in workers:
                worker.close()
    absent.update({name: "not measured" for name in contenders.CONTENDERS if name not in names})
    each = {
        name: [(wall / block * 1e3, cpu / block * 1e3) for wall, cpu in of] for name, of in results.items()
    }
    baseline_ms = measure.absolute(each)[contenders.BASELINE]
    through_sdk = ()
    if contenders.OPENAI in results and contenders.FAILOVER_OPENAI in results:
        through_sdk = measure.ratios(results, contenders.OPENAI)[contenders.FAILOVER_OPENAI]
    return report.calls(
        measure.ratios(results, contenders.BASELINE), through_sdk, baseline_ms, absent, served
    )


def _imports(rounds):
    _say(f"an import: {rounds} rounds ...")
    names, absent = imports.installed()
    with tempfile.TemporaryDirectory(prefix="bench-bytecode-") as cache:
        measures = {name: lambda name=name: imports.measure(name, cache) for name in names}
        measure.rounds_of(measures, 1)  # compiles
        results = measure.rounds_of(measures, rounds)
    each = {name: [(wall * 1e3, cpu * 1e3) for wall, cpu in of] for name, of in results.items()}
    baseline_ms = measure.absolute(each)[imports.BASELINE]
    return report.importing(measure.ratios(results, imports.BASELINE), baseline_ms, absent)


def _creation(rounds):
    _say(f"making clients: {rounds} rounds of {creation.COUNT} each ...")
    cases = creation.cases()
    measure.rounds_of(cases, 1)
    results = measure.rounds_of(cases, rounds)
    return report.creating(measure.absolute(results), measure.ratios(results, creation.BASELINE))


def _choosing(rounds):
    _say(f"choosing: {rounds} rounds of {choosing.CALLS} choices each ...")
    cases = choosing.cases()
    measure.rounds_of(cases, 1)
    results = measure.rounds_of(cases, rounds)
    return report.choices(measure.absolute(results), measure.ratios(results, (choosing.YARDSTICK, 0)))


def _threads(rounds):
    ratios, per_second, discards = {}, {}, {}
    for count in threads.COUNTS:
        _say(f"{count} threads: checking that each call is one request ...")
        with Upstream(logged=True) as upstream:
            threads.verify(upstream, count)
        _say(f"{count} threads: {rounds} rounds ...")
        with Upstream() as upstream:
            workers, absent = measure.workers_for(threads.NAMES, upstream.origins)
            try:
                measures = threads.measures(workers, count)
                measure.rounds_of(measures, 1)
                results = measure.rounds_of(measures, rounds)
            finally:
                for worker in workers:
                    worker.close()
        ratios[count] = measure.ratios(results, contenders.BASELINE)
        per_second[count] = measure.absolute(results)
        discards[count] = {worker.name: worker.discards for worker in workers}
    return report_service.sharing(ratios, per_second, discards, absent)


def _options(rounds, block):
    names = list(options.WITH_OPTIONS)
    _say(f"options: {rounds} rounds of {block} calls each ...")
    with Upstream() as upstream:
        workers, _ = measure.workers_for(names, upstream.origins)
        try:
            blocks = {worker.name: lambda worker=worker: worker.run(block) for worker in workers}
            measure.rounds_of(blocks, 1)
            results = measure.rounds_of(blocks, rounds)
        finally:
            for worker in workers:
                worker.close()
    each = {
        name: [(wall / block * 1e3, cpu / block * 1e3) for wall, cpu in of] for name, of in results.items()
    }
    ratios = measure.ratios(results, options.PLAIN)
    return report_service.switched_on(ratios, measure.absolute(each)[options.PLAIN])


def _idle(seconds, settled, probes):
    _say(f"idle: CPU over {seconds} s ...")
    with Upstream() as upstream:
        share = idle.cpu_share(upstream.origins, seconds)
    _say(f"idle: memory over {probes:,} probes ...")
    with Upstream(logged=True) as upstream:
        memory = idle.growth(upstream, settled, probes)
    return report_service.idling(share, seconds, memory, (settled, probes))


def _streams(rounds, chunks, paced, size):
    with streams.StreamUpstream() as upstream:
        readers, absent = streams.readers_for(stream_contenders.READERS, upstream.base)
        single = [reader for reader in readers if reader.name in stream_contenders.PIECEWISE]
        try:
            _say(f"streams: {rounds} rounds of {chunks:,} chunks at full speed ...")
            costs = _rounds_of_readers(readers, rounds, lambda reader: reader.cost(chunks))
            _say(f"streams: {rounds} rounds of {paced} paced chunks ...")
            delays = _rounds_of_readers(single, rounds, lambda reader: reader.delays(paced))
            _say(f"streams: {rounds} rounds of {streams.FIRSTS} first chunks ...")
            firsts = _rounds_of_readers(single, rounds, lambda reader: reader.firsts())
        finally:
            for reader in readers:
                reader.close()
        _say(f"streams: memory over {size / 1e6:.0f} MB ...")
        kinds = stream_upstream.USUAL, stream_upstream.PADDED, stream_upstream.LONG
        memory = {kind: streams.memory_of(upstream.base, kind, size) for kind in kinds}
    return report_streams.streaming(
        measure.ratios(costs, stream_contenders.OPENAI),
        measure.absolute(costs),
        measure.absolute(delays),
        measure.ratios(firsts, stream_contenders.BARE),
        measure.absolute(firsts),
        memory,
        absent,
    )


def _rounds_of_readers(readers, rounds, ask):
    measures = {reader.name: lambda reader=reader: ask(reader) for reader in readers}
    measure.rounds_of(measures, 1)
    return measure.rounds_of(measures, rounds)


def _drill(faults, times):
    _say(f"the drill: {len(faults)} faults, {times.end:g} s each and contender ...")
    return report_service.drilling(drill.run_all(drill.ALL_NAMES, faults, times), times)


def _leave_environment_behind():
    """A proxy of the machine's has no business between two local processes."""
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            del os.environ[name]
    path = [str(measure.HERE.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))


def _say(line):
    sys.stderr.write(line + "\n")


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds; for a look, not for a number")
    parser.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")
    parser.add_argument(
        "--only", action="append", choices=_PARTS, help="measure only this part; may be repeated"
    )
    parser.add_argument(
        "--contender", action="append", choices=contenders.CONTENDERS, help="and the baseline only"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
