"""Commands about submissions: submit one, see how far it is, wait for its end, prove it."""
