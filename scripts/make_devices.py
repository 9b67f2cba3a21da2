"""Write the calibrations that come with this package, qas/data/devices/*.json, from the fake backends of the extra ibm.

The fake backends are snapshots of real devices in qiskit-ibm-runtime (Apache License 2.0). Only what a `qas.Device`
needs is kept, with all digits.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from qas.devices import SHIPPED, Device, fake_backend

FOLDER = Path(__file__).resolve().parents[1] / "qas" / "data" / "devices"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in SHIPPED:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            device = Device.from_backend(fake_backend(name))
        data = device.to_json()
        data["source"] += " (Apache License 2.0)"
        path = FOLDER / f"{name}.json"
        path.write_text(json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n")
        print(f"{device}; {path.stat().st_size} bytes; {'; '.join(str(w.message) for w in told)}")


if __name__ == "__main__":
    main()
