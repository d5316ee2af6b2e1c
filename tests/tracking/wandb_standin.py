"""A loopback stand-in for the W&B service: what wandb's uploader needs to send a run, and what reads it back.

    with WandbStandIn() as service:
        subprocess.run(..., env=service.environment(home))
    service.runs["my-run"].history

It answers the GraphQL operations of the uploader (resume status, create or update a run, where to upload),
the file stream, and those of `wandb_standin_api`; it says "no data" to everything else. A run that exists is
resumed as the real service does it: the uploader is told how many rows there are and the last one.
"""

from __future__ import annotations

import base64
import gzip
import http.server
import json
import os
import re
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb_standin_api import ENTITY, PublicApi

DUMMY_KEY = "0123456789abcdef0123456789abcdef01234567"  # 40 characters, as the service's keys have


@dataclass
class StoredRun:
    """A run as the service would show it."""

    project: str
    group: str | None = None
    job_type: str | None = None
    display_name: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)
    resumed: int = 0  # times an existing run was asked for and given back
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """As the service shows it."""
        if not self.exit_codes:
            return "running"
        return "failed" if self.exit_codes[-1] else "finished"


class WandbStandIn:
    """The service; `runs` maps a run's id to what arrived of it, `api` has views, reports and artifacts.

    Operations named in `refused` are answered with an error.
    """

    def __init__(self) -> None:
        self.runs: dict[str, StoredRun] = {}
        self.keys_seen: set[str] = set()
        self.unanswered: list[str] = []
        self.refused: set[str] = set()
        self.api = PublicApi(self)
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """For a child process: everything W&B reads or writes outside a run lies under `home`."""
        return wandb_environment(home) | {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": DUMMY_KEY}

    def __enter__(self) -> WandbStandIn:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def graphql(self, operation: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        if operation == "RunResumeStatus":
            return self._resume_status(variables)
        if operation == "UpsertBucket":
            return self._upsert(variables)
        if operation == "CreateRunFiles":
            return self._upload_addresses(variables)
        if operation in (answers := self.api.answers()):
            answer: dict[str, Any] = answers[operation](variables)
            return answer
        self.unanswered.append(operation)
        return None

    def _resume_status(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(variables["name"])
        bucket = None
        if run is not None:
            run.resumed += 1
            bucket = {
                "id": variables["name"],
                "name": variables["name"],
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.display_name,
                "logLineCount": 0,
                "historyLineCount": len(run.history),
                "eventsLineCount": 0,
                "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
                "eventsTail": "[]",
                "config": json.dumps(run.config),
                "tags": run.tags,
                "notes": None,
                "wandbConfig": json.dumps({"t": 1}),
            }
        return {"model": {**_project(variables), "bucket": bucket}}

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun(project=variables["project"]))
        run.group = variables.get("groupName") or run.group
        run.job_type = variables.get("jobType") or run.job_type
        run.display_name = variables.get("displayName") or run.display_name
        run.tags = variables.get("tags") or run.tags
        run.config |= json.loads(variables.get("config") or "{}")
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.display_name,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": None,
            "project": _project(variables),
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _upload_addresses(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["run"]
        files = [{"name": f, "uploadUrl": f"{self.url}/upload/{name}/{f}"} for f in variables["files"]]
        return {"createRunFiles": {"runID": name, "uploadHeaders": [], "files": files}}

    def file_stream(self, name: str, message: dict[str, Any]) -> None:
        """Rows arrive with the offset of the first; sent again, they overwrite what they were."""
        run = self.runs[name]
        files = message.get("files") or {}
        if "wandb-history.jsonl" in files:
            part = files["wandb-history.jsonl"]
            rows = [json.loads(line) for line in part["content"]]
            run.history[part["offset"] : part["offset"] + len(rows)] = rows
        if "wandb-summary.json" in files:
            run.summary = json.loads(files["wandb-summary.json"]["content"][-1])
        if message.get("complete"):
            run.exit_codes.append(message["exitcode"])

    def upload(self, name: str, file: str, content: bytes) -> None:
        self.runs[name].files[file] = content


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes while its connection is kept open is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def wandb_environment(home: Path) -> dict[str, str]:
    """A child's whole environment: no W&B setting of this machine or account gets in, nothing gets out."""
    root = Path(__file__).parents[2]
    places = {
        name: str(home / name.lower()) for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")
    }
    return places | {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
        "WANDB_ERROR_REPORTING": "false",
    }


def _project(variables: dict[str, Any]) -> dict[str, Any]:
    entity = {"id": "entity", "name": variables.get("entity") or ENTITY}
    return {"id": "project", "name": variables["project"], "entity": entity}


def _handler(service: WandbStandIn) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            with service.lock:
                self._reply(self._answer(body))

        do_GET = do_PUT = do_POST  # noqa: N815  # the names http.server calls

        def _answer(self, body: bytes) -> dict[str, Any]:
            scheme, _, credentials = (self.headers.get("Authorization") or "").partition(" ")
            if scheme == "Basic":
                service.keys_seen.add(base64.b64decode(credentials).decode().partition(":")[2])
            if self.path == "/graphql":
                request = json.loads(body)
                query = re.sub(r"^\s*#.*$", "", request["query"], flags=re.MULTILINE)
                operation = request.get("operationName") or re.split(r"[({]", query)[0].split()[-1]
                try:
                    if operation in service.refused:
                        raise LookupError("permission denied")
                    return {"data": service.graphql(operation, request.get("variables") or {})}
                except LookupError as error:
                    return {"data": None, "errors": [{"message": str(error), "path": [operation]}]}
            if match := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
                service.file_stream(match[1], json.loads(body))
            elif match := re.fullmatch(r"/upload/([^/]+)/(.+)", self.path):
                service.upload(match[1], match[2], body)
            else:
                service.unanswered.append(self.path)
            return {}

        def _reply(self, answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
