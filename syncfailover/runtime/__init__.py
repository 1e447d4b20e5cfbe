"""The decisions carried out: threads, sockets and time."""
