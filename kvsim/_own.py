"""Makes `sim`, `traces`, `reports`, ... mean kvsim's own packages, whatever the user's folder holds.

The import names are common words, and Python puts the folder of a script (or, with `python -m`, the current
folder) first on the path. A user whose folder has a `sim.py` or a `traces/` must get kvsim's all the same.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from kvsim import _compiled

PACKAGES = ("hw_profiles", "traces", "policies", "sim", "calibration", "reports")
ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds the packages: site-packages, or the checkout."""


def drop_working_directory() -> None:
    """Take the current folder off the module search path, unless kvsim lives there.

    For the command line only, before anything else is imported: nothing in the user's folder can then pose as
    a module of ours or of a library.
    """
    here = Path.cwd()
    if here != ROOT:
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]


def module(name: str) -> ModuleType:
    """Import kvsim's own module `name` ("sim.scenario"), with every package name pinned to ours.

    Once a package is loaded its submodules are found through it and not through the path, so pinning the
    packages is enough. Raises ImportError naming both files when the program imported another one first.
    """
    pin()
    return importlib.import_module(name)


def pin() -> None:
    """Load kvsim's packages from ROOT: cheap, since their __init__ files do no work; repeating it is free."""
    missing = [name for name in PACKAGES if name not in sys.modules]
    if missing:
        sys.path.insert(0, os.fspath(ROOT))
        try:
            for name in missing:
                importlib.import_module(name)
        finally:
            sys.path.remove(os.fspath(ROOT))
    for name in PACKAGES:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin is None or Path(origin).resolve().parent != ROOT / name:
            raise ImportError(
                f"kvsim needs its own package {name!r} ({ROOT / name}), but this program has imported "
                f"another one of that name ({origin or sys.modules[name]}): rename that one"
            )
    if missing:
        _compiled.use(ROOT)
