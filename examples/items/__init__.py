"""The ``items`` example; its app is in ``app.py``."""
