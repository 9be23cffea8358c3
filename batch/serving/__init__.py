"""HTTP for both services: sockets, limits before anything is parsed, who calls, and answers that can always be encoded."""
