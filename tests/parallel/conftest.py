"""The graph and the parameters of the tests of sampling."""

from tests.sampling.conftest import parameters, planted

__all__ = ["parameters", "planted"]
