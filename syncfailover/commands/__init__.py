"""The commands of the command line, one per file: what may be written after its name, and what is done then."""
