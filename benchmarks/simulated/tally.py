"""What is counted while the fleet runs, second by second."""

#: Of the calls, one in so many has its time recorded.
_TIMED = 8


class Tally:
    """The calls of a run.

    Args:
        seconds: for which there are slots.

    """

    def __init__(self, seconds):
        #: Calls, and those of them that failed, by the second in which they began.
        self.calls, self.failed = [0] * seconds, [0] * seconds
        #: (second of its beginning, seconds that it took) of some calls.
        self.times = []
        self._ended = 0

    def began(self, now):
        self.calls[int(now)] += 1

    def ended(self, began, now, *, succeeded):
        if not succeeded:
            self.failed[int(began)] += 1
        self._ended += 1
        if not self._ended % _TIMED:
            self.times.append((int(began), now - began))
