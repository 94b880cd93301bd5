"""Life of a batch: claims lines, sends each through `serve`, survives a crash at any point."""
