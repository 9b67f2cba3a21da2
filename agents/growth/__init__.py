"""Agents that grow, edit and shrink circuits."""
