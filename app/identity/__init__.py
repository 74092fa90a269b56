"""Who asks, and what their role may do."""
