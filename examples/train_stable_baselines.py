"""Any Gymnasium agent can play: sb3-contrib's MaskablePPO on the circuit builder (plain PPO works too, unmasked)."""

import gymnasium
from sb3_contrib import MaskablePPO

import qas  # noqa: F401 - registers the environment

env = gymnasium.make("qas/CircuitBuilder-v0", problem="h2-2", max_gates=8)
model = MaskablePPO("MultiInputPolicy", env, n_steps=256, ent_coef=0.02, seed=0)
model.learn(6_000)

observation, info = env.reset(seed=1, options={"training": False})
done = False
while not done:
    action, _ = model.predict(observation, deterministic=True, action_masks=info["action_mask"])
    observation, reward, terminated, truncated, info = env.step(action)
    done = terminated or truncated
print(info["circuit"])
print(f"error {info['error']:.2e} Ha after {len(info['circuit'])} gates")
