"""The part of the W&B stand-in that the public API and wandb-workspaces talk to: runs, views, artifacts.

Views and reports are kept as the service keeps them: one that is saved without an id is new, even where
another has its name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

ENTITY = "standin"
_PAGE = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}


@dataclass
class StoredView:
    """A saved view (type "project-view") or a report (type "runs")."""

    id: str
    project: str
    type: str
    name: str
    display_name: str
    description: str
    spec: dict[str, Any]
    saved: int = 1  # times


@dataclass
class StoredArtifact:
    """A version of an artifact."""

    id: str
    run: str
    type: str
    collection: str
    aliases: list[str]
    metadata: dict[str, Any]
    files: list[str] = field(default_factory=list)
    committed: bool = False


class PublicApi:
    """Answers by operation; a class of its own only to keep the stand-in's file short."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.views: list[StoredView] = []
        self.artifacts: list[StoredArtifact] = []

    def answers(self) -> dict[str, Any]:
        """The function that answers each operation."""
        return {
            "Viewer": self._viewer,
            "GetViewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "Runs": self._runs,
            "View": self._find_views,
            "ProjectViews": self._find_views,
            "UpsertView2": self._upsert_view,
            "upsertView": self._upsert_view,
            "ProjectInternalId": self._project_id,
            "GetProjects": self._projects,
            "ArtifactType": self._artifact_type,
            "CreateArtifact": self._create_artifact,
            "CreateArtifactManifest": self._manifest,
            "UpdateArtifactManifest": self._update_manifest,
            "CreateArtifactFiles": self._artifact_files,
            "CommitArtifact": self._commit,
        }

    @property
    def projects(self) -> list[str]:
        """Those that have a run: a project is made by its first."""
        return list(dict.fromkeys(run.project for run in self.service.runs.values()))

    def _viewer(self, variables: dict[str, Any]) -> dict[str, Any]:
        user = {
            "id": "user",
            "entity": ENTITY,
            "username": ENTITY,
            "name": ENTITY,
            "email": "a@b",
            "flags": "{}",
        }
        return {"viewer": {**user, "teams": {"edges": []}}}

    # --- runs

    def _runs(self, variables: dict[str, Any]) -> dict[str, Any]:
        if variables["project"] not in self.projects:
            return {"project": None}
        filters = json.loads(variables.get("filters") or "{}")
        found = [
            (name, run)
            for name, run in self.service.runs.items()
            if run.project == variables["project"] and _matches(name, run, filters)
        ]
        start = int(variables.get("cursor") or 0)
        page = found[start : start + variables["perPage"]]
        end = start + len(page)
        edges = [
            {"node": _run_node(name, run), "cursor": str(start + place + 1)}
            for place, (name, run) in enumerate(page)
        ]
        info = {"endCursor": str(end), "hasNextPage": end < len(found)}
        return {
            "project": {
                "internalId": "1", "runCount": len(found), "readOnly": False,
                "runs": {"edges": edges, "pageInfo": info},
            }
        }  # fmt: skip

    # --- views and reports

    def _find_views(self, variables: dict[str, Any]) -> dict[str, Any]:
        project = variables.get("projectName") or variables.get("project") or variables["name"]
        if project not in self.projects:
            return {"project": None}
        name, kind = variables.get("viewName"), variables.get("viewType", "runs")
        found = [v for v in self.views if v.project == project and v.type == kind and name in (None, v.name)]
        edges = [{"node": _view_node(view), "cursor": view.id} for view in found]
        return {"project": {"allViews": {"edges": edges, "pageInfo": _PAGE}}}

    def _upsert_view(self, variables: dict[str, Any]) -> dict[str, Any]:
        known = [view for view in self.views if view.id == variables.get("id")]
        if variables.get("id") and not known:
            raise LookupError(f"no view {variables['id']}")
        if variables["projectName"] not in self.projects:
            raise LookupError(f"no project {variables['projectName']}")
        spec = json.loads(variables["spec"])
        if known:
            view = known[0]
            view.saved += 1
            view.spec, view.display_name = spec, variables["displayName"]
            view.description = variables["description"]
        else:
            view = StoredView(
                f"VmlldzoxMDA{len(self.views)}", variables["projectName"], variables["type"],
                variables["name"], variables["displayName"], variables["description"], spec,
            )  # fmt: skip
            self.views.append(view)
        return {"upsertView": {"view": _view_node(view), "inserted": not known}}

    def _project_id(self, variables: dict[str, Any]) -> dict[str, Any]:
        there = variables["projectName"] in self.projects
        return {"project": {"id": "UHJvamVjdA==", "internalId": "UHJvamVjdDox"} if there else None}

    def _projects(self, variables: dict[str, Any]) -> dict[str, Any]:
        def node(name: str) -> dict[str, Any]:
            return {
                "__typename": "Project", "id": "UHJvamVjdA==", "name": name,
                "entityName": variables["entity"], "createdAt": "2026-01-01T00:00:00",
                "isBenchmark": False, "user": None,
            }  # fmt: skip

        return {"models": {"edges": [{"node": node(name)} for name in self.projects], "pageInfo": _PAGE}}

    # --- artifacts

    def _artifact_type(self, variables: dict[str, Any]) -> dict[str, Any]:
        types = [a.type for a in self.artifacts if a.collection == variables["name"].split(":")[0]]
        return {"project": {"artifact": {"artifactType": {"name": types[0]}} if types else None}}

    def _create_artifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        given = variables["input"]
        artifact = StoredArtifact(
            id=f"artifact-{len(self.artifacts)}",
            run=given["runName"],
            type=given["artifactTypeName"],
            collection=(given.get("artifactCollectionNames") or [given.get("artifactCollectionName")])[0],
            aliases=[alias["alias"] for alias in given.get("aliases") or []],
            metadata=json.loads(given.get("metadata") or "{}"),
        )
        self.artifacts.append(artifact)
        body = {"id": artifact.id, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": body}}

    def _manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        place = f"{self.service.url}/upload/{variables['runName']}/{variables['artifactID']}/manifest.json"
        file = {"id": "file", "uploadUrl": place, "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": variables["artifactID"], "file": file}}}

    def _update_manifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifact(variables["artifactManifestID"])
        place = f"{self.service.url}/upload/{artifact.run}/{artifact.id}/manifest.json"
        file = {"id": "file", "uploadUrl": place, "uploadHeaders": []}
        return {"updateArtifactManifest": {"artifactManifest": {"id": artifact.id, "file": file}}}

    def _artifact_files(self, variables: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for spec in variables["input"]["artifactFiles"]:
            artifact = self._artifact(spec["artifactID"])
            artifact.files.append(spec["name"])
            node = {
                "id": "file", "name": spec["name"], "displayName": spec["name"], "storagePath": spec["name"],
                "uploadUrl": f"{self.service.url}/upload/{artifact.run}/{artifact.id}/{spec['name']}",
                "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": artifact.id},
            }  # fmt: skip
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit(self, variables: dict[str, Any]) -> dict[str, Any]:
        artifact = self._artifact(variables["artifactID"])
        artifact.committed = True
        return {"commitArtifact": {"artifact": {"id": artifact.id, "digest": "digest"}}}

    def _artifact(self, id: str) -> StoredArtifact:
        return next(artifact for artifact in self.artifacts if artifact.id == id)


def _view_node(view: StoredView) -> dict[str, Any]:
    return {
        "id": view.id, "type": view.type, "name": view.name, "displayName": view.display_name,
        "description": view.description, "spec": json.dumps(view.spec), "user": None,
        "project": {"id": "UHJvamVjdA==", "name": view.project, "entityName": ENTITY},
        "createdAt": "2026-01-01T00:00:00", "updatedAt": "2026-01-01T00:00:00",
    }  # fmt: skip


def _run_node(name: str, run: Any) -> dict[str, Any]:
    return {
        "id": name, "projectId": "1", "name": name, "displayName": run.display_name, "tags": run.tags,
        "state": run.state, "group": run.group, "jobType": run.job_type, "config": json.dumps(run.config),
        "summaryMetrics": json.dumps(run.summary), "systemMetrics": "{}", "sweepName": None, "commit": None,
        "readOnly": False, "createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00",
        "description": None, "notes": None, "historyLineCount": len(run.history),
        "user": {"name": ENTITY, "username": ENTITY},
        "historyKeys": None,
    }  # fmt: skip


def _matches(name: str, run: Any, filters: dict[str, Any]) -> bool:
    """What the service's filters say about a run: attributes, equal or one of several."""
    has = {"name": name, "group": run.group, "jobType": run.job_type, "display_name": run.display_name}
    for key, wanted in filters.items():
        if key not in has:
            raise LookupError(f"no attribute {key}")
        allowed = wanted["$in"] if isinstance(wanted, dict) else [wanted]
        if has[key] not in allowed:
            return False
    return True
