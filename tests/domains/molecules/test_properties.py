"""Units convert and come back; a normaliser standardises what it was fitted on, and remembers how."""

import itertools
import json

import numpy as np
import pytest
import torch

from sciffusion.domains.molecules.data import MoleculeSet
from sciffusion.domains.molecules.properties import Normaliser, PropertyTable, convert


def scalar(value: float, unit: str, to: str) -> float:
    return convert(torch.tensor(value, dtype=torch.float64), unit, to).item()


def test_units_agree_with_the_constants_of_physics() -> None:
    from ase import units  # CODATA, kept by others

    assert scalar(1, "Eh", "eV") == 27.211386245988
    assert scalar(1, "Eh", "kcal/mol") == pytest.approx(
        units.Hartree / (units.kcal / units.mol), rel=1e-7
    )
    assert scalar(1, "Eh", "kJ/mol") == pytest.approx(
        units.Hartree / (units.kJ / units.mol), rel=1e-7
    )
    assert scalar(1, "D", "e*angstrom") == pytest.approx(units.Debye, rel=1e-7)
    assert scalar(1, "a0^3", "angstrom^3") == pytest.approx(units.Bohr**3, rel=1e-7)
    assert scalar(1, "e*a0", "e*angstrom") == pytest.approx(units.Bohr, rel=1e-7)
    assert scalar(1, "GHz", "cm^-1") == pytest.approx(1e9 * units._hplanck / units._e / units.invcm)


def test_every_conversion_comes_back() -> None:
    kinds = ["Eh eV meV kJ/mol kcal/mol", "D e*angstrom e*a0", "a0^2 angstrom^2", "GHz cm^-1"]
    for kind in kinds:
        for unit, to in itertools.product(kind.split(), repeat=2):
            assert scalar(scalar(3.7, unit, to), to, unit) == pytest.approx(3.7, rel=1e-14)


def test_units_of_other_things_and_unknown_units_are_refused() -> None:
    with pytest.raises(ValueError, match="'Eh' measures energy and 'D' dipole"):
        scalar(1, "Eh", "D")
    with pytest.raises(ValueError, match="unit 'kcal/mole' is not known. Did you mean 'kcal/mol'"):
        scalar(1, "Eh", "kcal/mole")
    assert scalar(1, "furlong", "furlong") == 1  # a label of the user's own


def some(n: int = 50) -> MoleculeSet:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 6, n)
    values = np.stack([rng.normal(3, 2, n), rng.exponential(5, n) + 2.5 * sizes], axis=1)
    cv = dict.fromkeys((1, 6, 7, 8, 9), 2.5)
    table = PropertyTable(("gap", "cv"), ("Eh", "cal/mol/K"), torch.from_numpy(values), {"cv": cv})
    atoms = sizes.sum()
    return MoleculeSet.from_arrays(
        np.full(atoms, 6), np.zeros((atoms, 3)), np.cumsum([0, *sizes]), properties=table
    )


def test_what_it_was_fitted_on_has_mean_zero_and_mean_absolute_deviation_one() -> None:
    mols = some()
    scale = Normaliser.fit(mols, ["cv", "gap"], units={"gap": "eV"}, subtract_atoms=["cv"])
    y = scale.targets(mols)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(y.abs().mean(0), torch.ones(2))


def test_a_normaliser_keeps_its_convention_when_stored() -> None:
    mols = some()
    scale = Normaliser.fit(mols, ["cv", "gap"], units={"gap": "eV"}, subtract_atoms=["cv"])
    again = Normaliser.from_dict(json.loads(json.dumps(scale.to_dict())))
    assert again == scale
    part = mols.subset(slice(0, 10))
    back = again.denormalise(again.targets(part).double())
    expected = torch.stack([part.get("cv", subtract_atoms=True), part.get("gap", unit="eV")], dim=1)
    torch.testing.assert_close(back, expected, rtol=1e-6, atol=1e-5)


def test_a_property_that_never_varies_has_no_scale() -> None:
    with pytest.raises(ValueError, match="'gap' has mean .* no scale"):
        Normaliser.fit(some().subset([3]), ["gap"])


@pytest.mark.parametrize("wrong", [{"units": {"gop": "eV"}}, {"subtract_atoms": ["gop"]}])
def test_a_convention_for_no_property_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="'gop' is not one of names: gap"):
        Normaliser.fit(some(), ["gap"], **wrong)


def test_a_table_that_does_not_fit_is_refused() -> None:
    values = torch.zeros(3, 2).double()
    for names, units, table, message in (
        (("a",), ("D",), values, "1 names and 1 units for values"),
        (("a", "a"), ("D", "D"), values, "names must differ"),
        (("a", "b"), ("D", "D"), values.float(), "float64"),
    ):
        with pytest.raises(ValueError, match=message):
            PropertyTable(names, units, table)
    with pytest.raises(ValueError, match="property 'c' is not known"):
        PropertyTable(("a", "b"), ("D", "D"), values, {"c": {1: 0.0}})
