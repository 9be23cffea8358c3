"""All tests. A package, so that a test may import `tests.support`; they import nothing from each other."""
