"""Training and what runs inside it."""
