"""A part of peft's own tests on circuit adapters, where its source distribution has been unpacked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("peft")
FOLDER = os.environ.get("PEFT_SOURCES")
ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.peft,
    pytest.mark.skipif(not FOLDER, reason="PEFT_SOURCES names an unpacked source distribution of peft"),
]
PART = "test_merge_layers or test_save_load_roundtrip or MixedAdapterBatches or MultipleActiveAdapters"


@pytest.mark.parametrize("form", ["frames", "rotation"])
def test_published_tests_pass(form: str, tmp_path: Path) -> None:
    assert FOLDER is not None
    out = tmp_path / "suite.json"
    script = [sys.executable, str(ROOT / "benchmarks" / "peft_suite.py"), FOLDER, "--form", form, "--out", str(out)]
    subprocess.run([*script, "-k", f"test_custom_models and ({PART})"], check=True, timeout=600)
    told = json.loads(out.read_text())
    assert told["failures"] == [] and told["passed"] > 30
