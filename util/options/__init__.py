"""Command lines: options in groups, protocols, what does not go together, what is not taken."""
