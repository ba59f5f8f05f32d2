"""The ``chat`` example; its app is in ``app.py``."""
