"""Where handlers run: threads, an event loop, groups, child processes, quarantine."""
