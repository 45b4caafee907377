"""Errors: their kinds, and one instance for each who raises it."""

from __future__ import annotations

import pytest

import aiomsi
from aiomsi._errors import another

KINDS = [getattr(aiomsi, name) for name in aiomsi.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_ours_and_no_operating_system_error(kind: type[Exception]) -> None:
    """An OSError raised in a middleware would be wrapped by aiohttp, or make it retry."""
    assert issubclass(kind, aiomsi.AiomsiError)
    assert not issubclass(kind, OSError)


@pytest.mark.parametrize("kind", [aiomsi.ProviderClosedError, aiomsi.WrongLoopError])
def test_misuse_is_a_runtime_error_too(kind: type[Exception]) -> None:
    """Python has a class for using something in the wrong state."""
    assert issubclass(kind, RuntimeError)


def test_another_instance_has_the_cause_and_no_traceback() -> None:
    """The copy says the same without the frames of whoever raised it before."""
    with pytest.raises(aiomsi.EndpointError) as caught:
        raise aiomsi.EndpointError("down", status=503) from KeyError("cause")
    error = caught.value
    copied = another(error)
    assert copied is not error
    assert (str(copied), copied.status, copied.__cause__) == ("down", 503, error.__cause__)
    assert copied.__traceback__ is None
    assert error.__traceback__ is not None


def test_a_foreign_error_that_cannot_be_copied_is_shared() -> None:
    """Hiding an odd error would be worse than sharing it."""

    class OddError(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__("odd", code)

    error = OddError(code=7)
    assert another(error) is error
