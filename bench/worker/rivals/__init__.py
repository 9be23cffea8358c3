"""What a user would write, or take, instead of Fanout's worker: each a program of its own, set up as its tutorial does."""
