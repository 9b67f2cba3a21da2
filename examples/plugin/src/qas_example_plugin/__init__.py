"""An agent and a problem family in a package of their own."""
