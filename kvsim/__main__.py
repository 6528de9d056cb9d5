"""The entry point of `kvsim` and `python -m kvsim`."""

import gc
import sys

from kvsim import _own


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 the answer is no, 2 bad input, 3 our bug."""
    gc.set_threshold(100_000)  # imports make many objects that stay: to look for garbage among them takes a tenth
    try:
        _own.drop_working_directory()
        _own.pin()  # before any of our packages is imported by name
        from kvsim.cli.main import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # during the imports; later ones end up as 130 too
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
