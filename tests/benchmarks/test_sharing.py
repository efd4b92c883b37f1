"""The box shares as well as it did: the benchmark's short form, against bounds that only a step back breaks."""

import pytest

from benchmarks.sharing.__main__ import main


@pytest.mark.timeout(400)
def test_the_sharing_has_not_become_worse(capfd: pytest.CaptureFixture[str]) -> None:
    """The real scripts keep every bound of the main suites, on two seeds."""
    assert main(["--small"]) == 0, capfd.readouterr().err
