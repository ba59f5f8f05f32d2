"""An app of Celery for tests: a task that publishes, as the docs have it."""

from __future__ import annotations

import json
import os

from celery import Celery

from wshub.backends import backend_from_url
from wshub.publisher import Publisher

app = Celery("tests", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": os.environ["TASKS"],
    "data_folder_out": os.environ["TASKS"],
    "control_folder": os.environ["TASKS_CONTROL"],
}
app.conf.broker_connection_retry_on_startup = True
hub = Publisher(backend_from_url(os.environ["HUB"], **json.loads(os.environ["HUB_OPTIONS"])))


def ship(order: str, user: str) -> None:  # pragma: no cover (Celery ends its children at once)
    hub.sync.send_to_user(user, {"order": order, "state": "shipped"})


app.task(name="ship")(ship)
