"""The pictures show every molecule, keep its shape, and need nothing from the network."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from IPython.core.formatters import PNGFormatter
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from sciffusion.domains.molecules import plots
from sciffusion.domains.molecules.container import Molecule, Molecules
from sciffusion.domains.molecules.viewer import html, svg


@pytest.fixture(scope="module")
def mols(embedded: Callable[[str], Molecule]) -> Molecules:
    """Good molecules and one that lost an H and one that is invalid."""
    parts = [embedded(smiles) for smiles in ("CCO", "C1CC1", "CC(N)=O", "C[C@H](O)F", "C#N")]
    lost = parts[0].positions.copy()
    lost[-1] += 4.0
    broken = [Molecule(lost, parts[0].z), Molecule(parts[1].positions * 0.7, parts[1].z)]
    return Molecules.concatenate([*parts, *broken])


def faces(figure: Figure) -> set[tuple[float, ...]]:
    (drawn,) = figure.axes[0].collections
    return {tuple(face) for face in np.asarray(drawn.get_facecolor())[:, :3].round(3).tolist()}


def pixels(figure: Figure) -> np.ndarray:
    page = BytesIO()
    figure.savefig(page, format="png")
    return np.asarray(Image.open(page).convert("RGB")).astype(float)


def test_a_view_is_a_motion_that_keeps_lengths_and_handedness(mols: Molecules) -> None:
    for mol in mols:
        seen = plots.view(mol.positions)
        before, after = (x - x.mean(axis=0) for x in (mol.positions, seen))
        turn = np.linalg.lstsq(before, after, rcond=None)[0]
        np.testing.assert_allclose(before @ turn, after, atol=1e-9)
        if np.linalg.matrix_rank(before) == 3:
            assert np.linalg.det(turn) == pytest.approx(1)
        width = np.ptp(seen, axis=0)
        assert width[0] >= width[2] - 1e-9


def test_every_molecule_of_a_grid_lies_in_its_own_cell(mols: Molecules) -> None:
    picture = pixels(plots.grid(mols, columns=3))
    rows = np.array_split(picture, 3)
    inked = [[(cell < 200).any() for cell in np.array_split(row, 3, axis=1)] for row in rows]
    assert inked == [[True] * 3, [True] * 3, [True, False, False]]


def test_atoms_of_wrong_valence_are_ringed_unless_told_otherwise(mols: Molecules) -> None:
    ring = tuple(np.round(to_rgb("#ff2fa0"), 3).tolist())
    assert ring in faces(plots.grid(mols))
    assert ring not in faces(plots.grid(mols[:5]))
    assert ring not in faces(plots.grid(mols, mark_unstable=False))


def test_a_diverged_molecule_leaves_its_cell_empty(mols: Molecules) -> None:
    wild = mols[:2].positions.copy()
    wild[0] = np.nan
    left, right = np.array_split(
        pixels(plots.grid(replace(mols[:2], positions=wild), columns=2)), 2, axis=1
    )
    assert (left > 250).all() and (right < 200).any()
    plots.grid(replace(mols[:1], positions=np.full_like(mols[0].positions, np.inf)))


def test_one_far_away_atom_does_not_shrink_the_others(mols: Molecules) -> None:
    many = Molecules.concatenate([mols[0]] * 24 + [mols[5]])
    alone = plots.grid(Molecules.concatenate([mols[0]] * 25))
    for figure in (plots.grid(many), alone):
        assert figure.axes[0].get_xlim() == alone.axes[0].get_xlim()
        (drawn,) = figure.axes[0].collections
        x = np.concatenate([np.asarray(path.vertices)[:, 0] for path in drawn.get_paths()])
        assert figure.axes[0].get_xlim()[0] <= x.min() < x.max() <= figure.axes[0].get_xlim()[1]


def test_an_empty_grid_is_refused(mols: Molecules) -> None:
    with pytest.raises(ValueError, match="no molecules"):
        plots.grid(mols[:0])


def test_figures_show_themselves_and_leave_pyplot_alone(mols: Molecules) -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    figure = mols.plot(columns=2)
    assert pyplot.get_fignums() == before
    shown = PNGFormatter()(figure)  # what a notebook asks, which never imported pyplot
    assert isinstance(shown, bytes) and shown.startswith(b"\x89PNG")


def test_formulas_are_drawn_for_good_and_broken_molecules(mols: Molecules, tmp_path: Path) -> None:
    picture = plots.drawings(mols, columns=4, pixels=150)
    assert picture.size == (600, 300)
    picture.save(tmp_path / "formulas.png")
    cells = [
        c
        for row in np.array_split(np.asarray(picture.convert("L")), 2)
        for c in np.array_split(row, 4, axis=1)
    ]
    assert [bool((cell < 128).any()) for cell in cells] == [True] * 7 + [False]


def test_a_flat_molecule_hides_hydrogens_only_if_it_is_valid(mols: Molecules) -> None:
    assert plots.flat(mols[0]).GetNumAtoms() == 3
    assert plots.flat(mols[6]).GetNumAtoms() == len(mols[6])
    assert not plots.flat(mols[0]).GetConformer().Is3D()


def test_any_tangle_of_atoms_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    ptr = np.arange(0, 21 * 20, 20)
    tangle = Molecules(rng.normal(size=(ptr[-1], 3)) * 0.8, rng.choice([1, 6, 7, 8], ptr[-1]), ptr)
    for mol in tangle:
        page = plots.flat(mol).GetConformer().GetPositions()
        apart = np.linalg.norm(page[:, None] - page, axis=-1) + np.eye(len(page))
        assert apart.min() > 0.04
    assert html(tangle, most=20).count("<svg") == 20
    assert plots.drawings(tangle).size[0] == 1200
    plots.grid(tangle)
    plots.geometry(tangle, tangle, columns=1)
    scattered = replace(tangle, positions=tangle.positions * 50)  # not a single bond
    for figure in (
        plots.geometry(scattered, tangle, columns=1),
        plots.geometry(scattered, columns=1),
    ):
        pixels(figure)


def test_geometry_panels_name_their_type_and_distance(mols: Molecules) -> None:
    longer = replace(mols[:5], positions=mols[:5].positions * 1.01)
    figure = plots.geometry(longer, mols[:5], columns=2)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 6 and titles[0].startswith("C-H   W₁ = 0.01")
    alone = plots.geometry(mols[:5], columns=1)
    assert alone.axes[0].get_title() == "C-H"
    assert pixels(figure).std() > 10 and pixels(alone).std() > 10


# The notebook page.


def test_the_page_holds_every_molecule_and_asks_the_network_for_nothing(mols: Molecules) -> None:
    page = mols._repr_html_()
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert all("www.w3.org" in address or "rdkit.org" in address for address in addresses)
    assert "src=" not in page and "import(" not in page
    data = json.loads(re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)[0])
    assert [len(m["z"]) for m in data["molecules"]] == mols.sizes.tolist()
    assert [m["z"] for m in data["molecules"]] == [mol.z.tolist() for mol in mols]
    assert [sum(m["marked"]) > 0 for m in data["molecules"]] == (~mols.stable).tolist()
    assert [len(m["bonds"]) for m in data["molecules"]] == [len(m.batch.bonds.orders) for m in mols]
    assert {str(z) for z in mols.z.tolist()} == set(data["palette"])
    assert page.count("<svg") == page.count("data-card title") == len(mols)


def test_the_page_counts_states_and_shows_only_the_first_molecules(mols: Molecules) -> None:
    page = html(mols, most=3)
    assert "<b>7 molecules</b>" in page and "the first 3 are shown" in page
    assert page.count("<svg") == 3
    for count, name in ((5, "stable"), (1, "valid, not stable"), (1, "invalid")):
        assert f"</span> {count} {name}" in page


def test_the_same_molecules_give_the_same_page_and_others_another_key(mols: Molecules) -> None:
    def key(shown: Molecules) -> str:
        return re.findall(r'data-molecules="(\w+)"', html(shown))[0]

    assert html(mols) == html(mols)
    assert key(mols) != key(mols[:2])


def test_one_molecule_and_none_have_a_page_too(mols: Molecules) -> None:
    assert "1 molecule, C2H6O" in mols[0]._repr_html_()
    assert html(mols[:0]) == "<p>no molecules</p>"


def test_a_diverged_molecule_does_not_break_the_page(mols: Molecules) -> None:
    wild = replace(mols[:1], positions=np.full_like(mols[0].positions, np.nan))
    data = re.findall(r'application/json">(.*?)</script>', html(wild), re.S)[0]
    assert "NaN" not in data and json.loads(data)["molecules"][0]["caption"].endswith("invalid")


def test_a_formula_is_one_svg_element(mols: Molecules) -> None:
    for mol in mols:
        assert svg(mol).startswith("<svg") and svg(mol).rstrip().endswith("</svg>")
