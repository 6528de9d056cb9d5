"""Read a machine profile: a shipped name or the path of a YAML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from hw_profiles import schema
from hw_profiles.documents import PROFILES, Files, document_of, files_of, find, list_shipped
from hw_profiles.errors import InputError
from hw_profiles.kernel_reader import kernel_notes, kernel_values
from hw_profiles.profile import Profile, Validity
from hw_profiles.quantity import Quantity
from hw_profiles.schema import ProfileValue, check_keys, mapping


def list_profiles() -> list[str]:
    """Names of the shipped profiles."""
    return list_shipped(PROFILES)


def load_profile(name_or_path: str | Path) -> Profile:
    """Profile of a shipped name ("h100-sxm") or a YAML file. Raises InputError (file, path, value)."""
    return read_profile(find(name_or_path, PROFILES, "profile"))


def read_profile(path: Path) -> Profile:
    """Profile of one YAML file and those that it takes values over from; see `load_profile`."""
    return _loaded(path, files_of(path))


@lru_cache(maxsize=32)  # until a file changes
def _loaded(path: Path, files: Files) -> Profile:
    document, sha256 = document_of(files)
    try:
        return _profile(document, str(path), sha256)
    except InputError as error:
        raise error.at(where=path) from None


def _profile(document: Mapping[str, Any], source: str, sha256: str) -> Profile:
    if document.get("schema") != schema.SCHEMA:
        raise InputError("", path="schema", found=document.get("schema", "nothing"), allowed=schema.SCHEMA)
    check_keys(document, schema.TOP_KEYS, None)
    kind = document.get("kind")
    if kind not in schema.KINDS:
        raise InputError("", path="kind", found=kind, allowed=schema.KINDS)
    sources = read_sources(document)
    entries = {value.path: value for value in _values(document, sources)}
    return Profile(
        name=read_word(document, "name"),
        kind=kind,
        vendor=read_word(document, "vendor"),
        entries=entries,
        sources=sources,
        kernels=kernel_notes(mapping(document.get("kernels"), "kernels")),
        validity=_validity(document),
        source=source,
        content_sha256=sha256,
    )


def read_word(document: Mapping[str, Any], key: str) -> str:
    """Text at a top-level key; InputError when there is none."""
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise InputError("", path=key, found=value, allowed="text")
    return value


def read_sources(document: Mapping[str, Any]) -> dict[str, str]:
    """Source key -> one line: what, then where it is from."""
    lines = {}
    for key, node in mapping(document.get("sources"), "sources").items():
        entry = mapping(node, f"sources.{key}")
        check_keys(entry, ("what", "url", "read"), f"sources.{key}")
        what = entry.get("what")
        if not isinstance(what, str) or not what:
            raise InputError("", path=f"sources.{key}.what", found=what, allowed="a line of text")
        lines[key] = " ".join(what.split()) + (f" <{entry['url']}>" if entry.get("url") else "")
    return lines


def _values(document: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[ProfileValue]:
    """Every value of the document: capacity and tiers, kernels, what is optional, links."""
    required: dict[str, Mapping[str, Quantity]] = {
        name: {**keys, **schema.OPTIONAL.get(name, {})} for name, keys in schema.REQUIRED.items()
    }
    optional = {name: keys for name, keys in schema.OPTIONAL.items() if name not in required}
    tiers = mapping(document.get("tiers"), "tiers")
    check_keys(tiers, [name[6:] for name in (*required, *optional) if name.startswith("tiers.")], "tiers")
    kernels, links = (mapping(document.get(name), name) for name in ("kernels", "links"))
    for name in schema.REQUIRED_LINKS:
        if name not in links:
            raise InputError(f"missing link {name!r}", path="links")

    def group(name: str, default: object) -> object:
        return tiers.get(name[6:], {}) if name.startswith("tiers.") else document.get(name, default)

    for name, keys in required.items():
        yield from read_group(name, group(name, None), keys, schema.REQUIRED[name], sources)
    yield from kernel_values(kernels, sources)
    for name, keys in optional.items():
        yield from read_group(name, group(name, {}), keys, {}, sources)
    for name, node in links.items():
        yield from _link(f"links.{schema.link_name(name)}", mapping(node, f"links.{name}"), sources)


def _link(path: str, node: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[ProfileValue]:
    """Values of one link, then those of its copy methods."""
    values = {**schema.LINK, **schema.LINK_OPTIONAL}
    check_keys(node, (*values, *schema.COPY_METHODS), path)
    plain = {key: value for key, value in node.items() if key in values}
    yield from read_group(path, plain, values, schema.LINK, sources)
    for method in schema.COPY_METHODS:
        if method not in node:
            continue
        group = mapping(node[method], f"{path}.{method}")
        yield from read_group(f"{path}.{method}", group, schema.COPY, schema.LINK, sources)
        missing = [key for key in schema.SMALL if key not in group]
        if missing and len(missing) < len(schema.SMALL):
            allowed = "cut, small_alpha and small_beta together, or none of them"
            raise InputError(f"missing value {missing[0]!r}", path=f"{path}.{method}", allowed=allowed)


def read_group(
    path: str,
    node: object,
    keys: Mapping[str, Quantity],
    required: Mapping[str, Quantity],
    sources: Mapping[str, str],
) -> Iterator[ProfileValue]:
    """Values of one group at `path`: which `keys` it may have and which of them it must. InputError names the path."""
    entry = mapping(node, path)
    check_keys(entry, keys, path)
    for key in required:
        if key not in entry:
            raise InputError(f"missing value {key!r}", path=path)
    for key, value in entry.items():
        if key in keys:
            yield schema.read_value(f"{path}.{key}", value, keys[key], sources)


def _validity(document: Mapping[str, Any]) -> Validity:
    entry = mapping(document.get("validity"), "validity")
    check_keys(entry, ("batch", "seq", "prefill", "prefix", "note"), "validity")
    batch, seq, prefill, prefix = (_range(entry, key) for key in ("batch", "seq", "prefill", "prefix"))
    return Validity(batch, seq, prefill, prefix, str(entry.get("note", "")))


def _range(entry: Mapping[str, Any], key: str) -> tuple[int, int]:
    value = entry.get(key)
    least = 0 if key == "prefix" else 1
    whole = isinstance(value, list) and len(value) == 2 and all(type(end) is int for end in value)
    if not isinstance(value, list) or not whole or not least <= value[0] <= value[1]:
        raise InputError("", path=f"validity.{key}", found=value, allowed="[least, most] in whole numbers")
    return value[0], value[1]
