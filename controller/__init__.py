"""Reads the backlog, decides how many workers it needs, launches them. Imports `batch`, never the front door or the local cloud."""
