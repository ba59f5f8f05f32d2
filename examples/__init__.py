"""
Runnable apps: ``echo``, ``items`` and ``chat`` from FastAPI's tutorial, and ``rooms``.

From a checkout they are the package ``examples``, in an installed wheel ``wshub.examples``;
``python -m examples rooms`` or ``python -m wshub.examples rooms`` starts one.
"""
