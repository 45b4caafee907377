"""The command line: `aiomsi`, or `python -m aiomsi`."""


def main() -> None:
    """Run the command line."""
