"""Ways into this package from libraries that are not its dependencies: one file each, imported by whoever wants it."""
