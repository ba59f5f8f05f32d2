"""The ``echo`` example; its app is in ``app.py``."""
