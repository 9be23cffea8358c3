"""A worked example: a handler that makes thumbnails, from the function to the deployed lane. docs/handlers.md leads through it."""
