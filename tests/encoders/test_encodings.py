"""Every registered encoding keeps the contract; names, classes and what other packages bring."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from qas.encoders import ENCODINGS, MODELS
from qas.encoders.graphs import PortsEncoding
from qas.encoders.pools import POINTS, SCREENS
from qas.testing import EncodingContract


class TestEncodings(EncodingContract):
    @pytest.fixture(params=ENCODINGS, autouse=True)
    def kind(self, request: pytest.FixtureRequest) -> Any:  # type: ignore[override]
        self.kind = request.param
        return request.param


class TestOneOfAnotherPackage(EncodingContract):
    class Renamed(PortsEncoding):
        """The same graphs under another name."""

        name = "renamed"

    kind = Renamed


def test_names_are_known_without_torch() -> None:
    code = (
        "import sys, qas.encoders, qas.envs, qas.registry\n"
        "assert len(qas.registry.registry('models')) == 3 and len(qas.registry.registry('points')) == 5\n"
        "assert len(qas.registry.registry('rewards')) == 13 and len(qas.registry.registry('curricula')) == 3\n"
        "assert not {'torch', 'qiskit', 'numba'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for known in (ENCODINGS, MODELS, POINTS, SCREENS):
        assert all(known.about(name) for name in known)
