"""Virtual time: what happens when."""

from heapq import heappop, heappush


class Agenda:
    """What is to happen, by virtual seconds; what falls on the same moment happens in the order it was noted in."""

    def __init__(self):
        self._entries = []
        self._count = 0

    def at(self, when, do, *what):
        """Call `do(when, *what)` at that time."""
        self._count += 1
        heappush(self._entries, (when, self._count, do, what))

    def run(self, before):
        """Let everything happen that is due before that time."""
        entries = self._entries
        while entries and entries[0][0] < before:
            when, _, do, what = heappop(entries)
            do(when, *what)
