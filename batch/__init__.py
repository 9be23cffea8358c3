"""What runs inside a worker, the words that everyone shares, and the client that submits. Imports none of the other packages."""
