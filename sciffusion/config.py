"""Typed configuration: frozen dataclasses to and from YAML, with every mistake named.

Standard library and PyYAML only, because training has to start on a machine that has little more
than torch. Reading is strict: an unknown key, a wrong type or a missing value is an error that
names the file, the full key and the nearest right key, and all mistakes are reported at once.

Supported types: ``bool int float str Path None``, ``Literal``, ``tuple``, ``dict[str, T]``,
unions, and nested dataclasses. In a union of dataclasses each member has a first field
``kind: Literal["name"] = "name"`` that tells them apart.

The YAML dialect is the 1.2 core schema: ``1e-3`` is a number, ``no`` and ``on`` are strings,
``010`` and ``1:30`` are not numbers, and a key that appears twice is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar, Union, cast, final, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")
_MISSING = dataclasses.MISSING
_SCALARS = (bool, int, float, str, Path)


class ConfigError(ValueError):
    """A configuration that cannot be used; the message lists every problem with its key."""


def load(cls: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Read a YAML file into the dataclass ``cls``; ``overrides`` are strings ``"train.lr=1e-3"``.

    Raises:
        ConfigError: naming the file and, for each mistake, the key and what was expected.
    """
    return parse(cls, read_yaml(path), overrides, source=str(path))


def parse(
    cls: type[T],
    values: Mapping[str, object],
    overrides: Sequence[str] = (),
    source: str = "config",
) -> T:
    """Build the dataclass ``cls`` from nested mappings, checking every key and type."""
    reader = _Reader(cls)
    merged = reader.override(values, overrides)
    result = reader.build(cls, merged, "", None)
    if reader.problems:
        raise ConfigError(
            "\n  ".join([f"{source} is not a valid {cls.__name__}:", *reader.problems])
        )
    return cast(T, result)


def read_yaml(path: str | Path) -> dict[str, object]:
    """Read a YAML mapping without interpreting it; an empty file is an empty mapping."""
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such configuration file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {_show(values)}")
    return values


def dump(config: object) -> str:
    """Write a dataclass (or nested mappings) as YAML that :func:`load` reads back exactly."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def to_dict(config: object) -> object:
    """Turn dataclasses, tuples and paths into the dictionaries, lists and strings of YAML."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {
            f.name: to_dict(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init
        }
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(value) for value in config]
    return str(config) if isinstance(config, Path) else config


def flatten(values: object, prefix: str = "") -> dict[str, object]:
    """List the leaves of nested mappings by dotted key: ``{"train.lr": 1e-3, ...}``."""
    if not isinstance(values, Mapping) or not values:
        return {prefix: values}
    leaves: dict[str, object] = {}
    for key, value in values.items():
        leaves |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves


@final
class _Reader:
    """One pass over one configuration, collecting problems instead of stopping at the first."""

    def __init__(self, root: type) -> None:
        self.problems: list[str] = []
        self.paths = list(_paths(root))

    def override(self, values: Mapping[str, object], overrides: Sequence[str]) -> dict[str, object]:
        merged = dict(values)
        for text in sorted(overrides, key=lambda text: ".kind=" not in text):  # these come first
            key, equals, raw = text.partition("=")
            if not equals:
                self.problems.append(f"override {text!r}: write it as key=value")
                continue
            try:
                given = yaml.load(raw, Loader=_Loader)
            except yaml.YAMLError:
                self.problems.append(f"override {text!r}: the value is not readable YAML")
                continue
            node = merged
            *parents, last = key.strip().split(".")
            for parent in parents:
                child = node.get(parent)
                node[parent] = dict(child) if isinstance(child, Mapping) else {}
                node = cast("dict[str, object]", node[parent])
            if last == "kind" and node.get("kind", given) != given:
                node.clear()  # the other keys are those of another kind
            node[last] = given
        return merged

    def build(self, cls: type, value: object, path: str, base: object) -> object:
        """Build one dataclass; absent keys come from ``base``, the default that it replaces."""
        if not isinstance(value, Mapping):
            return self.fail(path, f"expected keys of {cls.__name__}, got {_show(value)}")
        known = {f.name: f for f in dataclasses.fields(cls) if f.init}
        hints = get_type_hints(cls)
        before = len(self.problems)
        for key in value:
            if key not in known:
                self.unknown(path, str(key), known)
        arguments = {}
        for name, field in known.items():
            default = _default(field) if base is None else getattr(base, name)
            if name in value:
                arguments[name] = self.read(hints[name], value[name], _join(path, name), default)
            elif default is _MISSING:
                self.fail(_join(path, name), f"is required ({_name(hints[name])})")
            else:
                arguments[name] = default
        if len(self.problems) > before:
            return None
        try:
            return cls(**arguments)
        except ValueError as error:
            return self.fail(path or cls.__name__, str(error))

    def read(self, hint: object, value: object, path: str, default: object) -> object:
        origin, options = get_origin(hint), get_args(hint)
        if hint is object:
            return value
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self.build(hint, value, path, default if isinstance(default, hint) else None)
        if origin in (Union, types.UnionType):
            return self.union(options, value, path, default)
        if origin is Literal:
            if any(value == o and type(value) is type(o) for o in options):
                return value
            return self.fail(path, f"{_show(value)} is not one of {_choices(options, value)}")
        if origin is tuple:
            return self.sequence(options, value, path)
        if origin is dict and isinstance(value, Mapping):
            return {k: self.read(options[1], v, f"{path}.{k}", None) for k, v in value.items()}
        if hint is types.NoneType and value is None:
            return None
        if hint in _SCALARS:
            converted = _scalar(cast(type, hint), value)
            if converted is not None:
                return converted
        return self.fail(path, f"expected {_name(hint)}, got {_show(value)}")

    def union(
        self, options: tuple[object, ...], value: object, path: str, default: object
    ) -> object:
        members = [o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)]
        if isinstance(value, Mapping) and members:
            kinds = {_kind(m): m for m in members}
            chosen: type
            if len(members) == 1:
                chosen = members[0]
            elif "kind" in value:
                kind = value["kind"]
                if kind not in kinds:
                    return self.fail(
                        _join(path, "kind"), f"{_show(kind)} is not one of {_choices(kinds, kind)}"
                    )
                chosen = kinds[cast(str, kind)]
            elif type(default) in members:
                chosen = type(default)
            else:
                return self.fail(path, f"needs a key kind, one of {_choices(kinds, '')}")
            return self.build(chosen, value, path, default if type(default) is chosen else None)
        exact_first = sorted(
            (o for o in options if o not in members), key=lambda o: o is not type(value)
        )
        for option in exact_first:
            before = len(self.problems)
            result = self.read(option, value, path, default)
            if len(self.problems) == before:
                return result
            del self.problems[before:]
        return self.fail(path, f"expected {' | '.join(map(_name, options))}, got {_show(value)}")

    def sequence(self, options: tuple[object, ...], value: object, path: str) -> object:
        if not isinstance(value, (list, tuple)):
            return self.fail(path, f"expected a list, got {_show(value)}")
        if len(options) == 2 and options[1] is Ellipsis:
            options = (options[0],) * len(value)
        if len(options) != len(value):
            return self.fail(path, f"expected {len(options)} values, got {len(value)}")
        pairs = enumerate(zip(options, value, strict=True))
        return tuple(self.read(o, v, f"{path}[{i}]", None) for i, (o, v) in pairs)

    def unknown(self, path: str, key: str, known: Iterable[str]) -> None:
        near = [_join(path, k) for k in difflib.get_close_matches(key, list(known), n=1)]
        elsewhere = [p for p in self.paths if p.rpartition(".")[2] == key and p != _join(path, key)]
        guess = (near + elsewhere)[:1]
        hint = f"did you mean {guess[0]}?" if guess else f"known keys: {', '.join(sorted(known))}"
        self.problems.append(f"{_join(path, key)}: unknown key; {hint}")

    def fail(self, path: str, message: str) -> object:
        self.problems.append(f"{path}: {message}")
        return None


def _scalar(hint: type, value: object) -> object:
    """Convert without guessing: an int may serve as a float, a string as a path, nothing else."""
    if hint is float and type(value) is int:
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    return value if type(value) is hint or (hint is Path and isinstance(value, Path)) else None


def _default(field: dataclasses.Field[object]) -> object:
    return field.default_factory() if field.default_factory is not _MISSING else field.default


def _kind(member: type) -> str:
    return str(next((f.default for f in dataclasses.fields(member) if f.name == "kind"), ""))


def _members(hint: object) -> Iterator[type]:
    """Yield the dataclasses inside a type hint."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for option in get_args(hint):
        yield from _members(option)


def _paths(cls: type, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(cls).items():
        yield _join(prefix, name)
        for member in _members(hint):
            yield from _paths(member, _join(prefix, name))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _name(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _show(value: object) -> str:
    return f"{value!r} ({type(value).__name__})"


def _choices(options: Iterable[object], value: object) -> str:
    names = [str(o) for o in options]
    near = difflib.get_close_matches(str(value), names, n=1)
    return ", ".join(names) + (f"; did you mean {near[0]}?" if near else "")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the YAML 1.2 scalars and without duplicate keys."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.YAMLError(f"key {key!r} appears twice{node.start_mark}")
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """The matching writer: it quotes each string that the loader would take for a number."""


_CORE_SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {}
    for _tag, (_pattern, _first) in _CORE_SCALARS.items():
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
        )
