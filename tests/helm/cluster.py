"""A Kubernetes control plane on loopback: the real etcd and API server, and nothing that starts containers.

What a cluster's controllers and nodes would tell is told by `Told`, a stand-in: that a job has ended, that a pod of
`helm test` has. Everything else (what is taken, kept, changed, refused) is the API server's own.
"""

import json
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import httpx

from tests.helm.charts import TOOLS, Manifest

PROGRAMS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wirthforge" / "control-plane-1.37.2"
TOKEN = "of-a-cluster-that-lives-for-a-test"
START_S_MAX = 60
POLL_S = 0.1
NOW = "2026-11-24T00:00:00Z"


class Cluster:
    """Its API, as its admin."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._url = f"https://127.0.0.1:{port}"
        self.api: httpx.Client

    def answers(self) -> bool:
        """Whether it is ready. Its certificate and key are written while it starts."""
        certificates = self._folder / "certificates"
        if not hasattr(self, "api"):
            if not all((certificates / f"apiserver.{part}").exists() for part in ("crt", "key")):
                return False
            self._connect()
        try:
            return self.api.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def _connect(self) -> None:
        context = ssl.create_default_context(cafile=self._folder / "certificates" / "apiserver.crt")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.api = httpx.Client(base_url=self._url, verify=context, headers=headers, timeout=30)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": self._url,
                        "certificate-authority": str(self._folder / "certificates" / "apiserver.crt"),
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        (self._folder / "config").write_text(json.dumps(config))

    def helm(self, *arguments: str, values: object = None) -> "subprocess.CompletedProcess[str]":
        """Run helm against it."""
        given = () if values is None else ("--values", "-")
        return subprocess.run(  # noqa: S603 (our own helm)
            [TOOLS / "bin" / "helm", "--kubeconfig", self._folder / "config", *arguments, *given],
            input=json.dumps(values),
            env={"HOME": str(self._folder), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=80,
        )

    def namespace(self, name: str) -> None:
        """A namespace that takes no pod but such as keep to the restricted standard."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        made = self.api.post("/api/v1/namespaces", json={"metadata": {"name": name, "labels": labels}})
        assert made.status_code == 201, made.text
        # A controller makes it in a whole cluster.
        account = {"metadata": {"name": "default"}}
        self.api.post(f"/api/v1/namespaces/{name}/serviceaccounts", json=account).raise_for_status()

    def all(self, path: str) -> dict[str, Manifest]:
        """What is at a path, by name."""
        found = self.api.get(path)
        assert found.status_code == 200, found.text
        return {each["metadata"]["name"]: each for each in found.json()["items"]}


class Told:
    """Stands in for the controllers and nodes of a namespace: tells that jobs and pods of tests have ended."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._api, self._namespace = cluster.api, namespace
        self._is_over = Event()
        # Names of jobs in the order in which they ended, and which of them shall fail.
        self.ended: list[str] = []
        self.failing: set[str] = set()

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(POLL_S):
            jobs = f"/apis/batch/v1/namespaces/{self._namespace}/jobs"
            for job in self._api.get(jobs).json()["items"]:
                if not job["status"].get("conditions"):
                    self._end(f"{jobs}/{job['metadata']['name']}/status", job["metadata"]["name"])
            pods = f"/api/v1/namespaces/{self._namespace}/pods"
            for pod in self._api.get(pods).json()["items"]:
                if pod["status"].get("phase") != "Succeeded":
                    self._tell(f"{pods}/{pod['metadata']['name']}/status", {"phase": "Succeeded"})

    def _end(self, path: str, name: str) -> None:
        def condition(kind: str, reason: str) -> dict[str, str]:
            return {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": NOW, "lastProbeTime": NOW}

        status: dict[str, Any] = {"startTime": NOW}
        if name in self.failing:
            reason = "BackoffLimitExceeded"
            status["conditions"] = [condition("FailureTarget", reason), condition("Failed", reason)]
            status["failed"] = 1
        else:
            reason = "CompletionsReached"
            status["conditions"] = [condition("SuccessCriteriaMet", reason), condition("Complete", reason)]
            status |= {"completionTime": NOW, "succeeded": 1}
        if self._tell(path, status):
            self.ended.append(name)

    def _tell(self, path: str, status: dict[str, Any]) -> bool:
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = self._api.patch(path, content=json.dumps({"status": status}), headers=headers)
        assert answer.status_code in {200, 404}, answer.text  # 404: helm was faster
        return answer.status_code == 200


def _commands(folder: Path, ports: Sequence[int]) -> tuple[list[str], list[str]]:
    etcd, peer, api = ports
    here = "http://127.0.0.1"
    certificates = str(folder / "certificates")
    return (
        [
            str(PROGRAMS / "etcd"), f"--data-dir={folder / 'etcd'}", "--unsafe-no-fsync",
            f"--listen-client-urls={here}:{etcd}", f"--advertise-client-urls={here}:{etcd}",
            f"--listen-peer-urls={here}:{peer}", f"--initial-advertise-peer-urls={here}:{peer}",
            f"--initial-cluster=default={here}:{peer}",
        ],
        [
            str(PROGRAMS / "kube-apiserver"), f"--etcd-servers={here}:{etcd}", f"--secure-port={api}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
            f"--cert-dir={certificates}", f"--token-auth-file={folder / 'tokens'}", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.43.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'key'}", f"--service-account-signing-key-file={folder / 'key'}",
        ],
    )  # fmt: skip


@contextmanager
def control_plane(
    folder: Path, ports: Sequence[int], running: Callable[..., AbstractContextManager[object]]
) -> Iterator[Cluster]:
    """Start it, and end it.

    Args:
        folder: for its data.
        ports: three free ones: etcd's, etcd's for its peers, the API server's.
        running: runs a command as long as its context lasts.
    """
    making = ["openssl", "genrsa", "-out", str(folder / "key"), "2048"]
    subprocess.run(making, check=True, capture_output=True)  # noqa: S603 (nothing of it comes from outside)
    (folder / "tokens").write_text(f"{TOKEN},admin,admin,system:masters\n")
    etcd, server = _commands(folder, ports)
    with running(etcd, folder / "etcd.log"), running(server, folder / "server.log"):
        cluster = Cluster(folder, ports[2])
        waiting = Event()
        for _ in range(int(START_S_MAX / POLL_S)):
            waiting.wait(POLL_S)
            if cluster.answers():
                break
        else:
            raise AssertionError((folder / "server.log").read_text()[-3000:])
        yield cluster
        cluster.api.close()
