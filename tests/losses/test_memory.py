"""Every loss at 100,000 rows of width 128 within 4 GB, or a refusal that names its `sample=`."""

import sys

import jax
import jax.numpy as jnp
import pytest

from experiments.bench_losses_cases import CASES, NOT_LOSSES, WIDTH, limit_named, row_limit, takes_sample
from experiments.bench_losses_memory import Job, measure_apart
from hire_jax import losses

ROWS, LIMIT, MIB = 100_000, 4e9, 2**20
SAMPLED = sorted(name for name in CASES if takes_sample(name))
REFUSING = [name for name in SAMPLED if row_limit(name) is not None]


def test_every_exported_loss_is_measured():
    assert set(losses.__all__) == set(CASES) | NOT_LOSSES
    assert REFUSING


@pytest.mark.parametrize("name", REFUSING)
def test_a_refusal_names_sample_and_a_limit_that_holds(name):
    limit, loss, key = row_limit(name), getattr(losses, name), jax.random.key(0)

    def side(rows):
        return jax.ShapeDtypeStruct((rows, WIDTH), jnp.float32)

    def shape(rows, **options):
        return jax.eval_shape(lambda s, t: loss(s, t, **options), side(rows), side(rows)).shape

    with pytest.raises(ValueError, match="sample="):
        shape(limit + 1)
    assert shape(limit) == ()
    assert shape(10 * limit, sample=limit, key=key) == ()
    with pytest.raises(ValueError, match=f"at most {limit} rows"):
        shape(10 * limit, sample=limit + 1, key=key)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", list(CASES))
def test_a_hundred_thousand_rows_within_four_gigabytes(name):
    """Value and gradient, in a process of its own whose inputs, libraries and compiler count too."""
    (facts,) = measure_apart([Job(name, "ours", [ROWS])])
    note = ""
    if facts["stopped"] is not None:
        assert facts["stopped"]["why"] == "refused"
        limit = limit_named(facts["stopped"]["message"])
        (facts,) = measure_apart([Job(name, "sample", [ROWS], sample=limit)])
        note = f", refused but with sample={limit}"
    (row,) = facts["rows"]
    if row["resident"] is None:
        pytest.skip("the kernel's mark cannot be reset here")
    print(f"{name}: {row['seconds']:.2f} s, {row['memory'] / MIB:,.0f} MiB beyond the inputs, "
          f"{row['resident'] / MIB:,.0f} MiB in all{note}")
    assert row["resident"] < LIMIT
