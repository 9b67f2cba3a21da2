"""Every registered agent keeps the contract; none is listed here."""

from __future__ import annotations

from typing import Any

import pytest

from qas.agents import AGENTS
from qas.testing import AgentContract


class TestAgents(AgentContract):
    @pytest.fixture(params=list(AGENTS))
    def given(self, request: pytest.FixtureRequest) -> Any:
        return request.param
