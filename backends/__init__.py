"""Bundled backends: each folder exports ``backend``. The registry finds them; nothing imports them by name."""
