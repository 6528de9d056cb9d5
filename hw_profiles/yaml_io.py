"""Strict YAML reading and stable writing.

Differences from plain `yaml.safe_load`: a key given twice in one mapping is an error, keys are text, and
`1e9` is a number (YAML 1.2; PyYAML's 1.1 rule would read it as text).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hw_profiles.errors import InputError

_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"
_MERGE_TAG = "tag:yaml.org,2002:merge"


class _Strict(yaml.constructor.SafeConstructor):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise InputError(f"line {line}: keys must be text (put it in quotes)", found=key)
            if key in seen:
                raise InputError(f"line {line}: key {key!r} given twice (first on line {seen[key]})")
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


class _Loader(_Strict, yaml.SafeLoader):
    """Pure Python: stops at Python's recursion limit."""


_FastLoader: Any = type("_FastLoader", (_Strict, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), {})
"""libyaml, where PyYAML has it: several times as fast, but nesting without end would crash the process."""
_SHALLOW = 5000
"""Openings of nested values up to which a document cannot be too deep for `_FastLoader`."""


class _Plain:
    def ignore_aliases(self, data: Any) -> bool:
        return True  # repeat shared values: anchors are noise in a file meant to be read


_Dumper: Any = type("_Dumper", (_Plain, getattr(yaml, "CSafeDumper", yaml.SafeDumper)), {})
"""libyaml where PyYAML has it, as above. Quotes text such as "1e9" that `_Loader` would otherwise read as a number."""


for _cls in (_Loader, _FastLoader, _Dumper):
    _cls.add_implicit_resolver(_FLOAT_TAG, _FLOAT, list("-+.0123456789"))


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML document whose top level is a mapping.

    Raises InputError (file and line) for a missing or unreadable file, wrong encoding, YAML syntax, a
    duplicate key, a key that is not text, an empty document, or a top level that is not a mapping.
    """
    path = Path(path)
    return parse_yaml(read_text(path), where=path)


def parse_yaml(text: str, *, where: str | Path) -> dict[str, Any]:
    """As `load_yaml`, for text already read; `where` names it in errors."""
    loader: Any = None
    openings = sum(text.count(mark) for mark in ("[", "{", "- ", "? "))
    try:
        loader = _FastLoader(text) if openings <= _SHALLOW else _Loader(text)
        node = loader.get_single_node()
        # deep construction refuses recursive anchors, which nothing downstream could walk
        document = loader.construct_object(node, deep=True) if node else None
    except InputError as error:
        raise error.at(where=where) from None
    except yaml.YAMLError as error:
        raise InputError(_problem(error), where=where) from None
    except RecursionError:
        raise InputError("nested too deeply or recursive", where=where) from None
    except ValueError as error:  # e.g. the date 2026-99-99
        raise InputError(f"bad value: {error}", where=where) from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(document, dict):
        kind = "an empty file" if document is None else f"a {type(document).__name__}"
        raise InputError(f"found {kind}, expected a mapping (key: value lines)", where=where)
    return document


def read_text(path: Path) -> str:
    """Read a UTF-8 text file; every failure is an InputError naming the file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("file not found", where=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", where=path) from None
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", where=path) from None


def dump_yaml(data: dict[str, Any]) -> str:
    """Text of `data`, keys in the order given; `load_yaml` of it gives `data` back."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: not valid YAML: {error.problem or error.context}"
    return f"not valid YAML: {error}"
