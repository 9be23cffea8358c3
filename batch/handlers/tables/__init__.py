"""Tables of text: read, chosen from, computed with and written."""
