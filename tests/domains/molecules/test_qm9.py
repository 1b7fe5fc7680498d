"""QM9 is read alike from each source, and an incomplete or wrong source is refused."""

import io
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sciffusion.domains.molecules.compact import write_arrays
from sciffusion.domains.molecules.data import MoleculeSet
from sciffusion.domains.molecules.elements import SYMBOLS, DataError
from sciffusion.domains.molecules.qm9 import Row, edm_split, prepare_qm9, qm9, read_raw, read_wheel
from sciffusion.io import ChecksumError

TABLES = [f"qm9pack/data/qm9_part{k}.csv" for k in (1, 2, 3)]
HEADER = (
    "XYZ_file,Index,SMILES,InChi,N_atoms,Stoichiometry,Elements,XYZ_Ang,Mulliken_pop,"
    "Harmonic_Freq_cmi,RotA_GHz,RotB_GHz,RotC_GHz,Dipole_debye,Polarizability_bohr3,HOMO_au,"
    "LUMO_au,HOMO_LUMO_gap_au,R2_bohr2,ZPVE_au,InternalEnergy_0K_au,InternalEnergy_298K_au,"
    "Enthalphy_298K_au,GibbsFreeEnergy_298K_au,Heatcapacity_Cv_cal_mol_K\n"
)


@pytest.fixture
def rows() -> list[Row]:
    """Methane, ammonia and water, as QM9 has them (and a tiny number, to need an exponent)."""
    methane = [
        [-0.0126981359, 1.0858041578, 0.0080009958],
        [0.002150416, -0.0060313176, 0.0019761204],
        [1.0117308433, 1.4637511618, 0.0002765748],
        [-0.540815069, 1.4475266138, -0.8766437152],
        [-0.5238136345, 1.4379326443, 0.9063972942],
    ]
    ammonia = [
        [-0.0404260543, 1.0241077531, 0.0625637998],
        [0.0172574639, 0.0125452063, -0.0273771593],
        [0.9157893661, 1.3587451948, -0.0287577581],
        [-0.5202777357, 1.3435321258, -0.7755426124],
    ]
    water = [
        [-0.0343604951, 0.9775395708, 0.0076015923],
        [0.0647664923, 0.0205721989, 0.0015346341],
        [0.8717903737, 1.3007924048, 1.5e-06],
    ]
    p = "157.7118 157.70997 157.70699 0 13.21 -0.3877 0.1171 0.5048 35.3641 0.044749 -40.47893 "
    q = "293.60975 293.54111 191.39397 1.6256 9.46 -0.257 0.0829 0.3399 26.1563 0.034358 -56.525887"
    r = "799.58812 437.90386 282.94545 1.8511 6.31 -0.2928 0.0687 0.3615 19.0002 0.021375 -76.404702"
    values = [
        p + "-40.476062 -40.475117 -40.498597 6.469",
        q + " -56.523026 -56.522082 -56.544961 6.316",
        r + " -76.401867 -76.400922 -76.422349 6.002",
    ]
    atoms = [[6, 1, 1, 1, 1], [7, 1, 1, 1], [8, 1, 1]]
    return [
        Row(m + 1, "CNO"[m], atoms[m], np.array(pos), [float(x) for x in values[m].split()])
        for m, pos in enumerate((methane, ammonia, water))
    ]


def raw_text(row: Row) -> str:
    """As in the deposit: tabs, Fortran-like exponents, two SMILES, two InChI."""

    def number(x: float) -> str:
        return repr(float(x)).replace("e-0", "*^-").replace("e-", "*^-")

    lines = [str(len(row.z)), f"gdb {row.number}\t" + "\t".join(map(number, row.properties)) + "\t"]
    for z, xyz in zip(row.z, row.pos, strict=True):
        lines.append("\t".join([SYMBOLS[z], *map(number, xyz), "-0.5"]))
    lines += ["1341.307\t1341.3284", f"{row.smiles}\t{row.smiles}\t", "InChI=1S/x\tInChI=1S/x"]
    return "\n".join(lines) + "\n"


def raw_archive(path: Path, texts: dict[str, str]) -> Path:
    with tarfile.open(path, "w:bz2") as archive:
        for name, text in texts.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def wheel(path: Path, rows: list[Row]) -> Path:
    """The package with one molecule in each table."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for table, row in zip(TABLES, rows, strict=True):
            atoms = "['" + "','".join(SYMBOLS[z] for z in row.z) + "']"
            xyz = "[" + ",".join("[" + ",".join(map(repr, p)) + "]" for p in row.pos.tolist()) + "]"
            head = f'"f.xyz",{row.number},"{row.smiles}","InChI=1S/C,H4",{len(row.z)},"[4,1]"'
            values = ",".join(map(str, row.properties))
            package.writestr(table, f'{HEADER}{head},"{atoms}","{xyz}","[0]","[1]",{values}\n')
    return path


def assert_same(got: Iterator[Row], expected: list[Row]) -> None:
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a.pos, b.pos)
        assert (a.number, a.smiles, a.z, a.properties) == (b.number, b.smiles, b.z, b.properties)


def test_the_raw_archive_and_the_package_give_the_same_molecules(
    rows: list[Row], tmp_path: Path
) -> None:
    texts = {f"dsgdb9nsd_{row.number:06d}.xyz": raw_text(row) for row in rows}
    assert "1.5*^-6" in texts["dsgdb9nsd_000003.xyz"]  # the trap is in the test
    archive = raw_archive(tmp_path / "raw.tar.bz2", texts | {"readme.txt": "not a molecule"})
    assert_same(read_raw(archive), rows)
    assert_same(read_wheel(wheel(tmp_path / "qm9.whl", rows)), rows)


def test_an_incomplete_source_is_refused_by_count(rows: list[Row], tmp_path: Path) -> None:
    for source in (
        wheel(tmp_path / "qm9.whl", rows),
        raw_archive(tmp_path / "raw.tar.bz2", {f"{r.number}.xyz": raw_text(r) for r in rows}),
    ):
        with pytest.raises(DataError, match="is incomplete: 3 of 130,831 molecules"):
            prepare_qm9(source, tmp_path / "qm9.npz")
    assert not (tmp_path / "qm9.npz").exists()


def test_a_molecule_that_failed_the_authors_check_is_left_out(
    rows: list[Row], tmp_path: Path
) -> None:
    texts = {"58.xyz": raw_text(rows[0]._replace(number=58)), "1.xyz": raw_text(rows[0])}
    with pytest.raises(DataError, match="incomplete: 1 of"):  # number 58 is one of the 3,054
        qm9(path=raw_archive(tmp_path / "raw.tar.bz2", texts))


def test_a_damaged_source_is_named(rows: list[Row], tmp_path: Path) -> None:
    archive = raw_archive(tmp_path / "raw.tar.bz2", {"1.xyz": raw_text(rows[0])})
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match="raw.tar.bz2 is damaged"):
        qm9(path=archive)
    (tmp_path / "qm9.whl").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="qm9.whl is damaged"):
        qm9(path=tmp_path / "qm9.whl")
    broken = raw_text(rows[0]).replace("gdb 1", "gdb one")
    with pytest.raises(DataError, match="1.xyz is not a molecule in the form of QM9"):
        qm9(path=raw_archive(tmp_path / "raw.tar.bz2", {"1.xyz": broken}))
    with pytest.raises(FileNotFoundError, match="no file .*gone.tar"):
        qm9(path=tmp_path / "gone.tar")


def test_a_package_that_is_not_the_expected_one_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCIFFUSION_CACHE", str(tmp_path))
    (tmp_path / "qm9").mkdir()
    (tmp_path / "qm9" / "qm9pack-1.0.3-py3-none-any.whl").write_bytes(b"another wheel")
    with pytest.raises(ChecksumError, match="qm9pack-1.0.3.* is wrong"):
        qm9()


def test_a_compact_file_of_other_molecules_is_not_taken_for_qm9(tmp_path: Path) -> None:
    arrays = {"ptr": np.array([0, 1]), "z": np.array([6]), "pos": np.zeros((1, 3))}
    with pytest.raises(DataError, match="a.npz is not QM9: its 1 molecules are not the 130,831"):
        qm9(path=write_arrays(tmp_path / "a.npz", arrays))


@pytest.fixture(scope="module")
def real(
    shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MoleculeSet]:
    """QM9 from the cache; there is no network."""
    stored = shared_data("molecules/qm9/qm9.npz")
    cache = tmp_path_factory.mktemp("cache")
    (cache / "qm9").mkdir()
    (cache / "qm9" / "qm9.npz").symlink_to(stored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCIFFUSION_CACHE", str(cache))
        patch.setenv("PIP_NO_INDEX", "1")
        yield qm9()


def test_the_first_molecules_are_those_of_the_deposit(rows: list[Row], real: MoleculeSet) -> None:
    for row, mol in zip(rows, real, strict=False):
        assert (row.number, row.smiles, row.z) == (mol.id, mol.smiles, mol.z.tolist())
        np.testing.assert_allclose(list(mol.properties.values()), row.properties, rtol=1e-7)
        # the hydrogen of water that carries the exponent is 7e-4 angstrom off
        tolerance = 1e-3 if row.smiles == "O" else 1.1e-5
        centred = row.pos - row.pos.mean(0)
        np.testing.assert_allclose(mol.pos.numpy(), centred, atol=tolerance)


def test_qm9_is_whole(real: MoleculeSet) -> None:
    assert (len(real), len(real.z)) == (130_831, 2_359_210)
    assert (real.sizes.min(), real.sizes.max()) == (3, 29)
    gap = (real.get("lumo") - real.get("homo") - real.get("gap")).abs().max()
    assert gap < 1.01e-4  # hartree; all three are rounded to 1e-4
    assert {len(real.split(s)) for s in ("train_first_half", "train_second_half")} == {50_000}


def test_qm9_is_split_by_the_published_rule(real: MoleculeSet) -> None:
    order = np.random.RandomState(0).permutation(130_831)
    parts = {"train": order[:100_000], "valid": order[100_000:117_748], "test": order[117_748:]}
    for name, rows in parts.items():
        assert real.split(name).ids.tolist() == real.ids[np.sort(rows)].tolist()
    assert [len(edm_split()[name]) for name in parts] == [100_000, 17_748, 13_083]
    everywhere = np.concatenate([edm_split()[name] for name in parts])
    assert len(np.unique(everywhere)) == len(everywhere) == len(real)  # none twice, none missing
    halves = [edm_split()[f"train_{name}_half"] for name in ("first", "second")]
    np.testing.assert_array_equal(np.sort(np.concatenate(halves)), edm_split()["train"])
    second = np.random.RandomState(42).permutation(100_000)[50_000:]
    np.testing.assert_array_equal(halves[1], edm_split()["train"][np.sort(second)])


def test_qm9_molecules_are_bound(real: MoleculeSet) -> None:
    energy = real.get("u0", unit="kcal/mol", subtract_atoms=True)
    assert energy.max() < 0
    assert energy[0].item() == pytest.approx(-390, abs=20)  # methane: four CH bonds of about 98


def test_the_two_readings_of_cv_differ_by_the_atoms_alone(real: MoleculeSet) -> None:
    difference = real.get("cv") - real.get("cv", subtract_atoms=True)
    np.testing.assert_allclose(difference.numpy(), 2.981 * real.sizes, rtol=1e-12)


def test_qm9_is_batched_fast_enough_for_a_gpu(real: MoleculeSet) -> None:
    rows = np.argsort(real.sizes, kind="stable")[:51_200].reshape(-1, 256)
    start = time.process_time()
    for batch in rows:
        real.padded(batch)
    assert rows.size / (time.process_time() - start) > 20_000  # molecules a second on one core


def test_a_misspelt_split_names_the_nearest(real: MoleculeSet) -> None:
    with pytest.raises(ValueError, match="split 'validation' is not known. Did you mean 'valid'"):
        real.split("validation")
