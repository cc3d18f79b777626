"""Action units of each expression: the table of the distribution-matching loss."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .labels import ACTION_UNITS, EXPRESSIONS

ACTION_UNIT_PRIOR: dict[str, dict[int, float]] = {
    "neutral": {},
    "anger": {4: 1.0, 7: 1.0, 24: 1.0, 10: 0.26, 17: 0.52, 23: 0.29},
    "disgust": {9: 1.0, 10: 1.0, 17: 1.0, 4: 0.31, 24: 0.26},
    "fear": {1: 1.0, 4: 1.0, 20: 1.0, 25: 1.0, 2: 0.57, 5: 0.63, 26: 0.33},
    "happiness": {12: 1.0, 25: 1.0, 6: 0.51},
    "sadness": {4: 1.0, 15: 1.0, 1: 0.60, 6: 0.50, 11: 0.26, 17: 0.67},
    "surprise": {1: 1.0, 2: 1.0, 25: 1.0, 26: 1.0, 5: 0.66},
}
"""Action units by expression: 1.0 if prototypical (used by more than 70 % of 230 people), otherwise
the share of people who used it. Source: Du, Tao & Martinez, "Compound facial
expressions of emotion", PNAS 111(15), 2014, Table 1."""


def action_unit_prior(
    action_units: Sequence[int] = ACTION_UNITS, *, binary: bool = False
) -> Tensor:
    """Return P(action unit | expression): (7, A) float32, rows in the order of `EXPRESSIONS`.

    A unit without a prior gets a column of zeros. `binary` sets prototypical units to 1
    and the others to 0.
    """
    table = torch.zeros(len(EXPRESSIONS), len(action_units))
    for row, expression in enumerate(EXPRESSIONS):
        for column, unit in enumerate(action_units):
            table[row, column] = ACTION_UNIT_PRIOR[expression].get(unit, 0.0)
    return (table == 1.0).float() if binary else table


def prototypical_units(action_units: Sequence[int] = ACTION_UNITS) -> Tensor:
    """Return a mask (7, A) of each expression's prototypical units.

    All False for neutral, and if one of the units is not in `action_units`.
    """
    table = action_unit_prior(action_units) == 1.0
    needed = [list(ACTION_UNIT_PRIOR[expression].values()).count(1.0) for expression in EXPRESSIONS]
    return table & (table.sum(1) == torch.tensor(needed)).unsqueeze(1)
