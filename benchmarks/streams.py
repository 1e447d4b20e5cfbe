"""What it costs to read a stream: CPU per chunk, how late chunks are, the first one, and memory.

`python streams.py NAME BASE_URL` serves one contender: it reads what to measure per line of JSON, and answers with one.
"""

import gc
import json
import os
import statistics
import sys
import time
from pathlib import Path

from measure import Process
from stream_contenders import LITELLM, READERS, REQUIRED, TEXT, stream_of
from stream_upstream import LONG, LONG_TOKEN, PACED, PAUSED, USUAL, bytes_of, text_of

#: Chunks of a stream that comes at full speed; of one whose reader is slow, so that a round does not take long.
CHUNKS, _FEWER = 10_000, 500
#: Streams of a round whose first content is timed.
FIRSTS = 10
#: Bytes of a stream over which memory is looked at, on the wire or of content.
MEMORY_BYTES = 100_000_000
#: The share of paced chunks that has to arrive one by one: whoever decodes nothing may get one in two halves.
_BY_THEMSELVES = 0.95
#: How often it is looked at, and the look at which everything has grown to its size.
_LOOKS, _SETTLED = 100, 9


class StreamUpstream(Process):
    """Our upstream of streams."""

    def __init__(self):
        super().__init__("the upstream of streams", "stream_upstream.py")
        self.base = f"http://127.0.0.1:{self.greeting['port']}/v1"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Reader(Process):
    """A contender in a process of its own."""

    def __init__(self, name, base):
        super().__init__(name, "streams.py", name, base)
        #: Why it cannot take part; None where it can.
        self.missing = self.greeting.get("missing")

    def cost(self, chunks=CHUNKS):
        """Return the microseconds per chunk, of wall clock and of CPU, of a stream that comes at full speed."""
        return self._asked(do="cost", chunks=min(chunks, _FEWER) if self.name == LITELLM else chunks)

    def delays(self, chunks):
        """Return how many milliseconds later than sent chunks were there, median and p99, and CPU per chunk in µs."""
        return self._asked(do="delays", chunks=chunks)

    def firsts(self, streams=FIRSTS):
        """Return the milliseconds to the first content, of an upstream that takes its time and of one that does not."""
        return tuple(self._asked(do="first", kind=kind, streams=streams)[0] for kind in (PAUSED, USUAL))

    def memory(self, kind, chunks):
        """Return what `memory_of` tells but for the first."""
        return self._asked(do="memory", kind=kind, chunks=chunks)

    def _asked(self, **question):
        self.ask(**question)
        return tuple(self.answer())


def memory_of(base, kind, size):
    """Return bytes of one stream: on the wire, of text, grown while it was read, at most, and kept with its reply.

    But for the first, they are counted since memory had settled.
    """
    chunks = int(size / (LONG_TOKEN if kind == LONG else bytes_of(kind)))
    reader = Reader(TEXT, base)
    try:
        return (int(chunks * bytes_of(kind)), *reader.memory(kind, chunks))
    finally:
        reader.close()


def readers_for(names, base):
    """Start everybody; return those who can take part, and of the others why they cannot."""
    readers = [Reader(name, base) for name in names]
    absent = {reader.name: reader.missing for reader in readers if reader.missing}
    return [reader for reader in readers if not reader.missing], absent


class _Served:
    """The contender in its own process: it reads streams of all kinds."""

    def __init__(self, make, base):
        self._base = base
        self._pieces, self._text = make(base)

    def cost(self, chunks):
        wall, cpu = time.perf_counter(), time.process_time()
        got = list(self._pieces(f"{USUAL}/{chunks}"))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if self._text(got) != text_of(USUAL, chunks):
            raise AssertionError("this is not what the upstream sent")
        return wall / chunks * 1e6, cpu / chunks * 1e6

    def delays(self, chunks):
        cpu = time.process_time()
        got = [(time.monotonic_ns(), piece) for piece in self._pieces(f"{PACED}/{chunks}")]
        cpu = time.process_time() - cpu
        said = [(then, self._text([piece])) for then, piece in got]
        delays = [(then - int(sent)) / 1e6 for then, sent in said if sent]
        if len(delays) < _BY_THEMSELVES * chunks:
            raise AssertionError(f"only {len(delays)} of {chunks} chunks came by themselves")
        return statistics.median(delays), statistics.quantiles(delays, n=100)[98], cpu / chunks * 1e6

    def first(self, kind, streams):
        times = []
        for _ in range(streams):
            began, first = time.perf_counter(), None
            for piece in self._pieces(f"{kind}/1"):
                if first is None and self._text([piece]):
                    first = time.perf_counter() - began
            times.append(first * 1e3)
        return (statistics.median(times),)

    def memory(self, kind, chunks):
        stream = stream_of(self._base, f"{kind}/{chunks}")
        looks, lengths, length = [], [], 0
        for read, chunk in enumerate(stream, 1):
            length += len(chunk.text)
            if read % (chunks // _LOOKS) == 0:
                looks.append(_resident())
                lengths.append(length)
        settled = looks[_SETTLED]
        del chunk
        peak = _most_resident()
        if stream.reply.text != text_of(kind, chunks):
            raise AssertionError("this is not what the upstream sent")
        gc.collect()
        return length - lengths[_SETTLED], max(looks) - settled, peak - settled, _resident() - settled


def _resident():
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _most_resident():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def serve(name, base):
    """Answer each question on standard input until it ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not get between the answers
    try:
        served = _Served(READERS[name], base)
    except ImportError:
        if name in REQUIRED:
            raise
        out.write(json.dumps({"missing": "not installed"}) + "\n")
        return
    served.cost(1)  # opens the connection, and brings in what is imported late
    out.write(json.dumps({}) + "\n")
    for line in sys.stdin:
        question = json.loads(line)
        out.write(json.dumps(getattr(served, question.pop("do"))(**question)) + "\n")


if __name__ == "__main__":
    serve(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(0)  # some libraries' threads would keep it
