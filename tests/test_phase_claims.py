"""Claims of a phase diagram, on planted diagrams."""

import numpy as np
import xarray as xr

from adam_transition.studies.phase.claims import large_beta2_converges, verdicts_keep_their_error
from tests.claim_cases import assert_three_verdicts, same


def _diagram():
    """Diverges below β2 = 0.5, with the drift's sign, also where β1 > √β2."""
    beta = np.linspace(0, 0.95, 20)
    dims = ("sampling", "n", "beta1", "beta2")
    drift = np.broadcast_to(np.where(beta < 0.5, 1.0, -1.0), (2, 1, 20, 20))
    return xr.Dataset(
        {"drift": (dims, drift), "drift_stderr": (dims, 0 * drift), "diverged": (dims, drift > 0)},
        {"sampling": ["cyclic", "with_replacement"], "n": [5], "beta1": beta, "beta2": beta},
    )


def _cell(value):
    """One cell far above the threshold, β1 < √β2."""

    def doctor(dataset):
        where = (dataset["beta1"] == 0) & (dataset["beta2"] == dataset["beta2"][-1])
        return dataset.assign({value: dataset["diverged"] * 0 | where})

    return doctor


def test_large_beta2_has_its_three_verdicts():
    def claims(dataset):
        return [large_beta2_converges(dataset)]

    cases = {"large_beta2_converges": (same, _cell("diverged"), _cell("undecided"))}
    assert_three_verdicts(claims, _diagram(), cases)
    # a grid that ends below the threshold does not tell
    below = _diagram().isel(beta2=slice(0, 8))
    assert large_beta2_converges(below).verdict == "inconclusive"
    # beyond β1 = √β2 nothing is claimed
    beyond = _diagram()
    unbounded = beyond["beta1"] ** 2 >= beyond["beta2"]
    beyond = beyond.assign(diverged=beyond["diverged"] | unbounded)
    assert large_beta2_converges(beyond).verdict == "reproduced"


def test_the_error_of_verdicts_has_its_three_verdicts():
    """One cell in ten wrong, and one in ten undecided, far from the boundary; nothing known."""
    dataset = _diagram()
    error = (dataset["drift"] * 0 + 0.05, dataset["diverged"] & False)
    dataset = dataset.assign(speed_error=error[0], undecided=error[1])
    tenth = dataset["beta1"] < 0.09
    wrong = dataset["diverged"] ^ tenth

    def claims(dataset):
        return verdicts_keep_their_error(dataset, start="from x0 = 1")

    def planted(**values):
        return lambda dataset: dataset.assign(values)

    cases = {
        "sign_of_drift": (
            same, planted(diverged=wrong), planted(undecided=~dataset["undecided"]),
        ),
        "verdicts_decided": (
            same, planted(undecided=dataset["undecided"] | tenth),
            planted(speed_error=error[0] + 1),
        ),
    }  # fmt: skip
    assert_three_verdicts(claims, dataset, cases)


def test_a_failing_share_says_what_it_is_where_steps_are_bounded():
    """Beyond β1 = √β2 steps are unbounded, and an inward drift may leave a run undecided."""
    dataset = _diagram()
    beyond = dataset["beta1"] >= np.sqrt(dataset["beta2"])
    undecided = dataset["diverged"] & False | beyond
    dataset = dataset.assign(speed_error=dataset["drift"] * 0 + 0.05, undecided=undecided)
    _, found = verdicts_keep_their_error(dataset, start="from x0 = 1")
    assert found.verdict == "fails"
    assert "; 1 with β1 < √β2, where steps are bounded)" in found.statement
    _, other = verdicts_keep_their_error(dataset, start="from x0 = 1", bounds_steps=False)
    assert (other.verdict, other.measured) == ("fails", found.measured)
    assert "bounded" not in other.statement
