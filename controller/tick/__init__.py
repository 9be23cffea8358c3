"""One tick: look at a lane, share what lanes share, act, and say what came of it."""
