"""Agents that play the circuit builder: reinforcement learning."""
