"""Find an architecture for layers of 64 features, then fine-tune a small vision transformer with it.

python examples/fine_tune_with_a_circuit.py    # about two minutes on one core
"""

from __future__ import annotations

import qas
from qas.finetuning.backbones import load_backbone
from qas.finetuning.finetune import Settings, finetune
from qas.finetuning.tasks import load_task


def main() -> None:
    run = qas.search("adapter-64", agent="evolution", seconds=30, seed=0)
    circuit = run.best.circuit
    print(f"{len(circuit)} gates, {circuit.n_angles} angles, error {run.best.error:.3f}")

    task = load_task("digits-inverted", seed=0)
    for settings, source in (
        (Settings("searched", bits=8, epochs=10), run),
        (Settings("linear-probe", epochs=10), None),
    ):
        outcome, _, _ = finetune(load_backbone("digits-tiny"), task, settings, source)
        name = settings.method.name
        print(f"{name:12s} test accuracy {100 * outcome.test:.1f} %, {outcome.adapter_bits:,} adapter bits")

    # The same circuit on a Hugging Face model (needs the extra peft):
    #   import qas.adapters.hf
    #   from peft import get_peft_model
    #   from qas.adapters import CircuitAdapterConfig
    #   config = CircuitAdapterConfig.from_run(run, rank=8, bits=8, target_modules=["q_proj", "v_proj"])
    #   model = get_peft_model(model, config)


if __name__ == "__main__":
    main()
