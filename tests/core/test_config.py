"""Configurations are read strictly, and every mistake is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from sciffusion.config import ConfigError, dump, load, parse
from sciffusion.training import AdamW, Muon, TrainConfig


@dataclass(frozen=True)
class Egnn:
    kind: Literal["egnn"] = "egnn"
    width: int = 64


@dataclass(frozen=True)
class Transformer:
    kind: Literal["transformer"] = "transformer"
    heads: int = 8


@dataclass(frozen=True)
class Inner:
    lr: float = 1e-3
    name: str = "a"
    depth: int = 2

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise ValueError(f"depth must not be negative, got {self.depth}")


@dataclass(frozen=True)
class Config:
    data: Path
    train: Inner = field(default_factory=lambda: Inner(lr=5.0, name="tuned"))
    model: Egnn | Transformer = Transformer(heads=4)
    mode: Literal["fast", "slow"] = "fast"
    limit: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    sizes: tuple[int, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    size: int | Literal["auto"] = "auto"
    flag: bool = False


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def read(folder: Path, text: str, *overrides: str) -> Config:
    return load(Config, write(folder, "data: x\n" + text), overrides)


EXAMPLES = [
    Config(Path("a/b")),
    Config(
        data=Path("/tmp/x y"),
        train=Inner(lr=1e-5, name="1e-3", depth=0),
        model=Egnn(width=3),
        mode="slow",
        limit=1.0 / 3.0,
        betas=(1e-300, 1e300),
        sizes=(3, 1, 2),
        weights={"a": 0.1, "no": float("inf")},
        size=7,
        flag=True,
    ),
    *(
        Config(Path("x"), train=Inner(name=n))
        for n in ("no", "1:30", "010", "", "null", "2026-11-23")
    ),
    *(Config(Path("x"), train=Inner(name=n)) for n in ("true", "0x1f", ".5", "1_000", "é: #", "~")),
]


@pytest.mark.parametrize("config", EXAMPLES)
def test_what_is_dumped_is_read_back_exactly(config: Config, tmp_path: Path) -> None:
    assert load(Config, write(tmp_path, dump(config))) == config


@pytest.mark.parametrize("optimizer", [AdamW(betas=(0.8, 0.95)), Muon(adamw_for=("*.head",))])
def test_training_settings_survive_a_round_trip(optimizer: AdamW | Muon) -> None:
    config = TrainConfig(optimizer=optimizer, ema=None, lr=3e-4, max_seconds=60.0)
    assert parse(TrainConfig, yaml.safe_load(dump(config))) == config


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "0.001", ".001", "+1e-3", "1.e-3"])
def test_every_spelling_of_a_float_is_a_float(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"limit: {text}").limit == 0.001


@pytest.mark.parametrize(
    "text", ["no", "off", "1:30", "010", "y", "2026-11-23", "08", "1_0", "1_0.5", "."]
)
def test_yaml_1_1_surprises_stay_strings(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, f"train: {{name: {text}}}").train.name == text


def test_an_int_serves_as_a_float_and_nothing_else_is_converted(tmp_path: Path) -> None:
    value = read(tmp_path, "limit: 3").limit
    assert value == 3.0
    assert type(value) is float
    for text, key in {
        "limit: true": "limit",
        "limit: '3'": "limit",
        "flag: 1": "flag",
        "train: {depth: 2.0}": "train.depth",
        "train: {depth: true}": "train.depth",
        "train: {name: 3}": "train.name",
        "sizes: 3": "sizes",
        "sizes: [1, a]": r"sizes\[1\]",
        "betas: [0.5]": "betas: expected 2 values, got 1",
        "weights: {a: b}": "weights.a",
        "size: other": "size",
        "train: 3": "train: expected keys of Inner",
        "model: [1]": "model",
    }.items():
        with pytest.raises(ConfigError, match=key):
            read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("train: {lrr: 1}", "train.lrr: unknown key; did you mean train.lr?"),
        ("lr: 1", "lr: unknown key; did you mean train.lr?"),
        ("train: {heads: 1}", "train.heads: unknown key; did you mean model.heads?"),
        ("zzz: 1", "zzz: unknown key; known keys: betas, data"),
        ("mode: fats", "mode: 'fats' (str) is not one of fast, slow; did you mean fast?"),
        ("model: {kind: egn}", "model.kind: 'egn' (str) is not one of egnn, transformer; did you"),
        ("model: {kind: egnn, heads: 1}", "model.heads: unknown key"),
        ("train: {depth: -1}", "train: depth must not be negative, got -1"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_the_nearest_right_one(
    text: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    assert hint in str(error.value)


def test_all_mistakes_are_reported_at_once_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "train: {lrr: 1, depth: x}\nmode: quick\n")
    with pytest.raises(ConfigError) as error:
        load(Config, path)
    for part in (str(path), "data: is required", "train.lrr", "train.depth", "mode"):
        assert part in str(error.value)


def test_absent_keys_keep_the_defaults_of_the_place_where_they_stand(tmp_path: Path) -> None:
    assert read(tmp_path, "train: {depth: 9}").train == Inner(lr=5.0, name="tuned", depth=9)
    assert read(tmp_path, "model: {}").model == Transformer(heads=4)
    assert read(tmp_path, "model: {kind: transformer}").model == Transformer(heads=4)
    assert read(tmp_path, "model: {kind: egnn}").model == Egnn()


def test_overrides_win_over_the_file_and_are_checked_like_it(tmp_path: Path) -> None:
    text = "train: {lr: 1.0, depth: 7}"
    config = read(tmp_path, text, "train.lr=1e-4", "sizes=[1,2]", "model.kind=egnn", "size=auto")
    assert config.train == Inner(lr=1e-4, name="tuned", depth=7)
    assert (config.sizes, config.model, config.size) == ((1, 2), Egnn(), "auto")
    with pytest.raises(ConfigError, match=r"train\.lrr: unknown key; did you mean train\.lr"):
        read(tmp_path, text, "train.lrr=1")
    with pytest.raises(ConfigError, match="write it as key=value"):
        read(tmp_path, text, "train.lr")


def test_an_override_of_the_kind_leaves_the_keys_of_the_other_kind_behind(tmp_path: Path) -> None:
    text = "model: {kind: transformer, heads: 3}\n"
    assert read(tmp_path, text, "model.kind=egnn").model == Egnn()
    assert read(tmp_path, text, "model.kind=egnn", "model.width=9").model == Egnn(width=9)
    assert read(tmp_path, text, "model.width=9", "model.kind=egnn").model == Egnn(width=9)
    assert read(tmp_path, text, "model.kind=transformer").model == Transformer(heads=3)


def test_a_key_of_another_kind_is_not_offered_as_its_own_correction(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.heads: unknown key; known keys: kind, width"):
        read(tmp_path, "model: {kind: egnn, heads: 3}\n")


def test_an_override_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"override 'sizes=\[1,': the value is not readable YAML"):
        read(tmp_path, "", "sizes=[1,")


def test_a_key_that_appears_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'mode' appears twice"):
        read(tmp_path, "mode: fast\nmode: slow\n")


@pytest.mark.parametrize("text", ["- 1", "just text", "a: [", "!!python/object:os.system {}"])
def test_a_file_that_is_no_plain_mapping_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load(Config, write(tmp_path, text))


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load(Config, tmp_path / "none.yaml")


def test_an_empty_file_means_all_defaults(tmp_path: Path) -> None:
    assert load(TrainConfig, write(tmp_path, "")) == TrainConfig()
