"""What outlives a process, or is shared between several: each kind in a file of its own, loaded when it is used."""
