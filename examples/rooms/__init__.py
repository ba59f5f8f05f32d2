"""The ``rooms`` example; its app is in ``app.py``."""
