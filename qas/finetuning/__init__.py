"""A study of adapters: methods to compare, tasks to compare them on, and `finetune`, which does it through peft.

Methods and tasks are open to other packages: an entry point of the group ``qas.methods`` names a subclass of
`qas.finetuning.methods.Method`, one of ``qas.tasks`` a function from seed and sizes to a `qas.finetuning.tasks.Task`.
Nothing heavy is imported here.
"""

from __future__ import annotations

from qas.registry import Registry

METHODS = Registry(
    "methods",
    "method",
    {
        "searched": "qas.finetuning.methods:Searched",
        "searched-rotation": "qas.finetuning.methods:SearchedRotation",
        "quantum-peft": "qas.finetuning.methods:QuantumPeft",
        "quantum-peft-rotation": "qas.finetuning.methods:QuantumPeftRotation",
        "taylor": "qas.finetuning.methods:Taylor",
        "lora": "qas.finetuning.methods:Lora",
        "bi-lora": "qas.finetuning.methods:BiLora",
        "vera": "qas.finetuning.methods:Vera",
        "random-subspace": "qas.finetuning.methods:RandomSubspace",
        "linear-probe": "qas.finetuning.methods:LinearProbe",
        "full": "qas.finetuning.methods:Full",
    },
)
TASKS = Registry(
    "tasks",
    "task",
    {
        "sprites": "qas.finetuning.tasks:sprites",
        "digits": "qas.finetuning.tasks:digits",
        "digits-rotated": "qas.finetuning.tasks:digits_rotated",
        "digits-inverted": "qas.finetuning.tasks:digits_inverted",
        "digits-clutter": "qas.finetuning.tasks:digits_clutter",
    },
)
