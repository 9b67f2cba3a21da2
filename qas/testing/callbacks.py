"""What every callback must keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from qas.agents.launch import resume, search
from qas.callbacks import Snapshot, make_callback
from qas.record import Progress
from qas.runs import Front, Run


class CallbackContract:
    """Tests of a callback; subclass it and name the callback."""

    callback: Any
    """a name of `qas.callbacks.CALLBACKS`, a class or a function"""

    settings: dict[str, Any] = {"agent": "random", "evaluations": 3_000, "max_gates": 6, "report": False}  # noqa: RUF012

    def test_a_search_finds_the_same_and_can_be_gone_on_with(self, tmp_path: Path) -> None:
        def front(run: Run) -> list[Any]:
            return [(result.error, result.circuit.key) for result in run.front]

        told = search("h2-2", out=tmp_path / "told", callbacks=[self.callback], **self.settings)
        quiet = search("h2-2", out=tmp_path / "quiet", **self.settings)
        assert told.status == "finished" and front(told) == front(quiet)
        more: dict[str, Any] = {"evaluations": 6_000, "report": False}
        again = resume(told.path, callbacks=[self.callback], **more)
        assert front(again) == front(resume(quiet.path, **more))

    def test_a_search_that_has_found_nothing_is_told_too(self, tmp_path: Path) -> None:
        callback = make_callback(self.callback)
        callback.on_start(tmp_path, {"agent": "random", "seed": 0})
        nothing = Progress(0.0, 0, 0, np.inf, 0, 0, 0.0, 0)
        assert callback(Snapshot(nothing, Front(), {"share": np.nan}, tmp_path)) is not False
