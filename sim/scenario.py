"""The scenario: what a user asks to simulate, validated and frozen (schema kvsim-scenario/1)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from hw_profiles.errors import InputError
from hw_profiles.yaml_io import dump_yaml, load_yaml
from sim.spec import ScenarioSpec
from sim.spec_errors import as_input_error
from traces.spec import is_path

if TYPE_CHECKING:
    from sim.result import Result

Progress = Callable[[float, float, int, int], None]
"""Called now and then with simulated time (s), span of the arrivals (s), requests done, requests in all."""


@dataclass(frozen=True)
class Scenario:
    """A validated scenario, the text it came from, and the folder that its relative paths start from."""

    spec: ScenarioSpec
    document: Mapping[str, Any]
    where: str
    base_dir: Path

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """Read a scenario file. Raises InputError, one line, for anything wrong with it."""
        file = Path(path)
        return cls.from_dict(load_yaml(file), where=str(path), base_dir=file.resolve().parent)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, where: str = "scenario", base_dir: str | Path = ".") -> Scenario:
        """Validate a scenario given as a mapping; `where` names it in messages. Raises InputError."""
        try:
            spec = ScenarioSpec.model_validate(document)
        except ValidationError as error:
            raise as_input_error(error, document, ScenarioSpec).at(where=where) from None
        except InputError as error:
            raise error.at(where=where) from None
        return cls(spec, deepcopy(dict(document)), where, Path(base_dir))

    def set(self, path: str, value: Any) -> Scenario:
        """The scenario with the value at a dotted path replaced; list items are addressed by their `name`.

        `value` may be text as on the command line ("1 TiB", "16", "{name: lru}"). Raises InputError.
        """
        return self.set_all([(path, value)])

    def set_all(self, settings: Iterable[tuple[str, Any]]) -> Scenario:
        """The scenario with several (path, value) set as by `set`, and validated once, with all of them in place.

        So values that are right only together may come in any order. Raises InputError.
        """
        document = deepcopy(dict(self.document))
        for path, value in settings:
            try:
                _assign(document, path.split("."), _scalar(value, path) if isinstance(value, str) else value, path)
            except InputError as error:
                raise error.at(where=self.where) from None
        return self.from_dict(document, where=self.where, base_dir=self.base_dir)

    def resolved(self) -> dict[str, Any]:
        """Every value spelled out, with absolute paths: what `scenario.yaml` of a run directory holds."""
        return self.spec.resolved(self.base_dir)

    def to_yaml(self) -> str:
        """The resolved scenario as YAML; loading it gives the same run."""
        return dump_yaml(self.resolved())

    def run(
        self,
        progress: Progress | None = None,
        *,
        check: bool = False,
        strict: bool = False,
        bound: bool = False,
        save_cache_state: bool = False,
        save_cache_state_at: float | None = None,
        save_snapshot_at: float | None = None,
        uncertainty: int = 0,
    ) -> Result:
        """Simulate. `check` verifies every invariant often, not only at the end; `bound` adds the run's regret, and
        `save_cache_state` what the tiers hold at the end; `save_cache_state_at` the same at a time (s), and
        `save_snapshot_at` how to go on from a time (`sim.snapshot`); `uncertainty` so many further runs on machines
        drawn from the intervals of the hardware values, which put bands on every metric (`sim.uncertainty`).

        Raises InputError, InvariantError.
        """
        from sim.run import simulate
        from sim.uncertainty import check_runs, with_uncertainty

        if uncertainty:
            check_runs(uncertainty)
        result = simulate(
            self,
            progress=progress,
            check=check,
            strict=strict,
            bound=bound,
            save_cache_state=save_cache_state,
            save_cache_state_at=save_cache_state_at,
            save_snapshot_at=save_snapshot_at,
        )
        return with_uncertainty(result, self, uncertainty) if uncertainty else result


def _scalar(text: str, path: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError("cannot read the value", path=path, found=text) from None


def _assign(node: Any, steps: list[str], value: Any, path: str) -> None:
    head, rest = steps[0], steps[1:]
    if isinstance(node, list):
        names = [item.get("name") if isinstance(item, dict) else item for item in node]
        if head not in names:
            raise InputError(
                "no item of that name", path=path, found=head, allowed=map(str, names), near=map(str, names)
            )
        index = names.index(head)
        if not rest:
            node[index] = value
        elif isinstance(node[index], dict):
            _assign(node[index], rest, value, path)
        else:
            node[index] = {"name": node[index]}
            _assign(node[index], rest, value, path)
        return
    if not rest:
        node[head] = value
        return
    child = node.get(head)
    if child is None:
        child = node[head] = {}
    elif isinstance(child, str):
        child = node[head] = {"path" if head == "trace" and is_path(child) else "name": child}
    elif not isinstance(child, dict | list):
        raise InputError("cannot set below a plain value", path=path, found=child)
    _assign(child, rest, value, path)
