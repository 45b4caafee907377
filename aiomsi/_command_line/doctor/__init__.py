"""`aiomsi doctor`: why a token can or cannot be had here, and what to do."""
