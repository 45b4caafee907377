"""`aiomsi serve`: an identity endpoint for other programs."""
