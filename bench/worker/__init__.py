"""The worker, side by side with what a user would write or take instead: same machine, same run, same messages."""
