"""How molecules show themselves in a notebook: structural formulas and one turning 3D view.

The page is self-contained. Where scripts do not run (on a code host, in an untrusted notebook) the
formulas are still there.
"""

from __future__ import annotations

import hashlib
import json
from html import escape
from pathlib import Path

import numpy as np

from sciffusion.errors import require

from .container import Molecule, Molecules
from .plots import colour, flat, radius, view

__all__ = ["html", "svg"]

_SCRIPT = Path(__file__).with_name("assets") / "viewer.js"
_STATES = {"stable": "#3a9d5d", "valid": "#d9982b", "invalid": "#c7433c"}


def html(mols: Molecules, *, most: int = 24) -> str:
    """The first ``most`` molecules as HTML; a click on a formula brings it into the 3D view."""
    shown = mols[:most]
    if not len(shown):
        return "<p>no molecules</p>"
    data = {
        "palette": {str(z): [colour(z), radius(z)] for z in np.unique(shown.z).tolist()},
        "molecules": [_model(mol) for mol in shown],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    cards = (
        "".join(_card(mol) for mol in shown)
        if len(mols) > 1
        else svg(shown[0], width=320, height=320)
    )
    more = f" &nbsp; the first {len(shown)} are shown" if len(mols) > len(shown) else ""
    return (
        f'<div data-molecules="{key}" style="background:#fff;color:#222;padding:8px;'
        'border-radius:8px;max-width:1060px;font:13px system-ui,sans-serif">'
        f'<script type="application/json">{text}</script>'
        f"<div style='margin-bottom:6px'>{_summary(mols)}{more}</div>"
        '<div style="display:flex;gap:10px;align-items:flex-start">'
        '<div style="flex:none;width:340px"><canvas style="width:340px;height:320px;cursor:grab;'
        'touch-action:none"></canvas><div data-caption style="text-align:center;color:#555;'
        'overflow-wrap:anywhere"></div></div>'
        '<div style="display:flex;flex-wrap:wrap;gap:4px;max-height:360px;overflow-y:auto">'
        f"{cards}</div></div></div>"
        f'<script>{_SCRIPT.read_text(encoding="utf-8").rstrip()}("{key}");</script>'
    )


def svg(mol: Molecule, *, width: int = 118, height: int = 96) -> str:
    """The structural formula as an SVG element."""
    draw = require("rdkit.Chem.Draw.rdMolDraw2D", extra="molecules")
    canvas = draw.MolDraw2DSVG(width, height)
    options = canvas.drawOptions()
    options.clearBackground = False
    options.bondLineWidth = 1.2
    options.fixedBondLength = 22
    draw.PrepareAndDrawMolecule(canvas, flat(mol), kekulize=mol.valid)
    canvas.FinishDrawing()
    text = str(canvas.GetDrawingText())
    return text[text.index("<svg") :]


def _card(mol: Molecule) -> str:
    state = _state(mol)
    title = f"{mol.formula}  {mol.smiles or mol.problem}  ({state})"
    return (
        f'<div data-card title="{escape(title)}" style="cursor:pointer;border-radius:6px;'
        f'border-top:3px solid {_STATES[state]};width:118px;height:100px">{svg(mol)}</div>'
    )


def _model(mol: Molecule) -> dict[str, object]:
    x = np.nan_to_num(view(mol.positions))
    bonds = mol.batch.bonds
    state = _state(mol)
    return {
        "z": mol.z.tolist(),
        "positions": x.round(3).tolist(),
        "bonds": [
            [*pair, order]
            for pair, order in zip(bonds.pairs.tolist(), bonds.orders.tolist(), strict=True)
        ],
        "marked": (~bonds.stable_atoms(mol.z)).tolist(),
        "radius": round(float(np.linalg.norm(x, axis=1).max()) + 0.7, 3),
        "caption": f"{mol.smiles or mol.formula} · {state}",
    }


def _state(mol: Molecule) -> str:
    return "stable" if mol.stable else "valid" if mol.valid else "invalid"


def _summary(mols: Molecules) -> str:
    dots = {"stable": mols.stable, "valid": mols.valid & ~mols.stable, "invalid": ~mols.valid}
    parts = [
        f'<span style="color:{_STATES[name]}">●</span> {int(flags.sum())} '
        + ("valid, not stable" if name == "valid" else name)
        for name, flags in dots.items()
        if flags.any()
    ]
    count = f"{len(mols)} molecules" if len(mols) > 1 else f"1 molecule, {mols[0].formula}"
    return f"<b>{count}</b>: " + " &nbsp; ".join(parts)
