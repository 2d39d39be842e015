"""Who asks, by key or token, and what each may do."""
