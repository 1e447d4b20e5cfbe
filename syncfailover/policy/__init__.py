"""The decisions: pure functions and state machines that are told the time and dealt the chance.

Nothing here does I/O, starts a thread, takes a lock, reads a clock or draws a random number of its own.
"""
