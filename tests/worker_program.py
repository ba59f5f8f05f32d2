"""A program with an app that starts its server by itself."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI

from wshub import ConnectionManager

manager = ConnectionManager()
app = FastAPI(lifespan=manager.lifespan)

if __name__ == "__main__":
    port, workers, *folders = sys.argv[1:]
    uvicorn.run(
        "tests.worker_program:app",
        port=int(port),
        workers=int(workers),
        reload=bool(folders),
        reload_dirs=folders,
    )
