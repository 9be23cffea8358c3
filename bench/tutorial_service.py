"""What a tutorial builds: Flask, Google's publisher, one publish a request, the wait for its id. gunicorn serves it in `bench.intake`."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

from flask import Flask, jsonify, request
from google.cloud import pubsub_v1

app = Flask(__name__)
publisher = pubsub_v1.PublisherClient()
topic = publisher.topic_path(os.environ["GOOGLE_CLOUD_PROJECT"], os.environ["TOPIC_NAME"])


@app.get("/health")
def health() -> Any:
    return jsonify(status="healthy")


@app.post("/submit-task")
def submit() -> Any:
    task = {**request.get_json(), "task_id": str(uuid.uuid4())}
    message_id = publisher.publish(topic, json.dumps(task).encode()).result()
    return jsonify(task_id=task["task_id"], message_id=message_id, status="submitted")
