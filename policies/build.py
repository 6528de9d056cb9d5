"""From a policy named in a scenario to an object: a table name, or a user's own class by file or module."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hw_profiles.errors import InputError
from policies.admission_control.base import AdmissionControl
from policies.architecture.base import Architecture
from policies.base import AdmissionPolicy, EvictionPolicy, OffloadPolicy, PrefetchPolicy
from policies.fleet.base import FleetPolicy
from policies.guard import USER_MODULE, guard, place_of
from policies.placement.base import Placement
from policies.reuse.base import Reuse
from policies.routing.base import Router
from policies.scheduling.base import Scheduler
from policies.sequence.plan import SequencePolicy
from policies.tables import NAMED, UNBOUNDED

BASES: dict[str, type] = {
    "eviction": EvictionPolicy,
    "admission": AdmissionPolicy,
    "offload": OffloadPolicy,
    "prefetch": PrefetchPolicy,
    "routing": Router,
    "fleet": FleetPolicy,
    "admission_control": AdmissionControl,
    "scheduling": Scheduler,
    "reuse": Reuse,
    "placement": Placement,
    "architecture": Architecture,
    **dict.fromkeys(("kv_format", "retention", "selection", "sequence_offload", "sequence_prefetch"), SequencePolicy),
}
"""Base class of each family; eviction and admission policies are built for a tier (TierInfo comes first)."""


def policy_class(family: str, name: str, *, base_dir: Path, path: str) -> type:
    """The class that `name` means: a row of the family's table, "my_policy.py:MyPolicy" or "my_pkg.mod:MyPolicy".

    A relative file is looked for beside the scenario (`base_dir`). Raises InputError, naming the scenario's `path`.
    """
    table = NAMED[family]
    if ":" not in name:
        if name not in table:
            if family == "eviction" and name == UNBOUNDED:
                raise InputError(
                    "a capacity, not a policy: give the tier more memory than the trace needs",
                    path=path,
                    found=name,
                    allowed="a policy such as lru, in a tier with a capacity such as '1 PiB'",
                )
            if name.endswith(".py"):
                raise InputError("which class of the file?", path=path, found=name, allowed=f'"{name}:MyPolicy"')
            raise InputError(
                f"unknown {family} policy",
                path=path,
                found=name,
                allowed=[*table, '"my_policy.py:MyPolicy"'],
                near=table,
            )
        return table[name]
    source, _, attribute = name.rpartition(":")
    if not source or not attribute:
        raise InputError("", path=path, found=name, allowed='"my_policy.py:MyPolicy" or "my_pkg.mod:MyPolicy"')
    module = _load(source, base_dir, path)
    found = getattr(module, attribute, None)
    if not (inspect.isclass(found) and issubclass(found, BASES[family])):
        base = BASES[family]
        classes = [k for k, v in vars(module).items() if inspect.isclass(v) and issubclass(v, base) and v is not base]
        what = f"no {family} policy of that name in {source}"
        if inspect.isclass(found):
            what = f"that class in {source} is no {family} policy: it does not subclass {base.__name__}"
        allowed = classes or f"a subclass of {base.__name__}"
        raise InputError(what, path=path, found=attribute, allowed=allowed, near=classes)
    return found


def build_policy(family: str, spec: Mapping[str, Any], *args: Any, base_dir: Path, path: str) -> Any:
    """Make the policy of `spec` = {"name": ..., option: value, ...}; `args` go first to its constructor.

    Options are the constructor's keyword arguments; an unknown one, or a value that the constructor refuses with
    ValueError or TypeError, raises InputError.
    """
    name = str(spec["name"])
    cls = policy_class(family, name, base_dir=base_dir, path=path)
    options = {k: v for k, v in spec.items() if k != "name"}
    allowed = policy_options(cls, skip=len(args))
    for key in options:
        if key not in allowed:
            raise InputError(
                f"{name} has no such option",
                path=f"{path}.{key}",
                found=key,
                allowed=list(allowed) or "no options",
                near=allowed,
            )
    try:
        policy = cls(*args, **options)
        return guard(family, policy) if ":" in name else policy
    except InputError as error:
        raise error.at(path=path) from None
    except (TypeError, ValueError) as error:
        option, colon, problem = str(error).partition(": ")
        if colon and option in options:
            raise InputError(problem, path=f"{path}.{option}") from None
        if not options:
            raise InputError(f"{name} cannot be used here: {error}", path=path) from None
        raise InputError(f"{name} refused its options: {error}", path=path, found=options) from None
    except (Exception, SystemExit) as error:
        place = place_of(error.__traceback__)
        if place is None:
            raise
        raise InputError(f"{name} failed: {type(error).__name__}: {error} ({place})", path=path) from None


def policy_options(cls: Callable[..., Any], *, skip: int = 0) -> dict[str, Any]:
    """Options of a policy class with their defaults: its constructor's arguments after the first `skip` ones."""
    parameters = list(inspect.signature(cls).parameters.values())[skip:]
    return {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def policy_source(name: str, *, base_dir: Path) -> bytes:
    """Source text of a user's policy for the config hash; empty for a policy that ships (the version covers it)."""
    if ":" not in name:
        return b""
    source = name.rpartition(":")[0]
    if source.endswith(".py"):
        return (base_dir / source).read_bytes()
    spec = importlib.util.find_spec(source)
    return Path(spec.origin).read_bytes() if spec and spec.origin else b""


def _load(source: str, base_dir: Path, path: str) -> Any:
    if not source.endswith(".py"):
        try:
            return importlib.import_module(source)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's module raises is reported in one line
            raise InputError(f"cannot import the module: {error}", path=path, found=source) from None
    file = (base_dir / source).resolve()
    if not file.is_file():
        here = f"its path from there; there is one at {Path(source).resolve()}" if Path(source).is_file() else None
        raise InputError(f"policy file not found in {base_dir}", path=path, found=source, allowed=here)
    name = f"{USER_MODULE}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look for it there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's file raises is reported in one line
        text = f"{file.name} failed to load: {type(error).__name__}: {error}"
        place = None if isinstance(error, SyntaxError) else place_of(error.__traceback__)  # that says so itself
        raise InputError(f"{text} ({place})" if place else text, path=path) from None
    return module
