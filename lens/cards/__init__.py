"""Lens cards: a run's settings and statistics without patients; several of them compared."""
