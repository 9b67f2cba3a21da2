"""Agents that choose among many candidate circuits: candidates, points, surrogate, acquisition."""
