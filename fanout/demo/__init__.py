"""`fanout demo`: the main job end to end on a local cloud, on real files."""
