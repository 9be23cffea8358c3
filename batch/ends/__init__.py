"""The end of a submission: what is to happen then, and the mark that stands until it has."""
