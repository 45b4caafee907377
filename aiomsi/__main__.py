"""The command line: `aiomsi`, or `python -m aiomsi`."""

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    if not (find_spec("click") and find_spec("rich")):
        sys.exit("aiomsi: the command line needs an extra; run: pip install 'aiomsi[cli]'")
    try:
        from aiomsi._command_line.commands import cli  # noqa: PLC0415  (imports what was just looked for)

        cli(prog_name="aiomsi")
    except OSError as error:  # What was found out cannot be written, as to a disk that is full.
        sys.exit(f"aiomsi: {error}")
    except KeyboardInterrupt:
        sys.exit(130)  # 128 + SIGINT, as shells have it.


if __name__ == "__main__":
    main()
