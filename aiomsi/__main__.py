"""The command line: `aiomsi`, or `python -m aiomsi`."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    if not (find_spec("click") and find_spec("rich")):
        sys.exit("aiomsi: the command line needs an extra; run: pip install 'aiomsi[cli]'")
    from aiomsi._command_line.commands import cli  # noqa: PLC0415  (imports what was just looked for)

    try:
        cli(prog_name="aiomsi")
    except OSError as error:  # What was found out cannot be written, as to a disk that is full.
        sys.exit(f"aiomsi: {error}")


if __name__ == "__main__":
    main()
