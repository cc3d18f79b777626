"""A Hub on the loopback interface, for the real `huggingface_hub` client: repositories, commits, large files, faults.

It keeps everything in memory and serves two ports, as the Hub does: the Hub itself, and the storage of large files,
which must never see a token. What it answers follows what the client reads (huggingface_hub 2.4, without Xet).
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITER, READER, STRANGER = "hf_writer_of_me", "hf_reader_of_me", "hf_of_somebody_else"
"""Tokens: of `me` to write, of `me` to read only, of `else`. Any other is refused as a revoked one is."""

ACCOUNTS = {WRITER: ("me", True), READER: ("me", False), STRANGER: ("else", True)}
LARGE = (".safetensors", ".bin", ".pt")
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}")


@dataclass
class Fault:
    """What goes wrong with the next requests of a kind.

    `how` is a status (503), or `close` (no answer), `lost` (done, but no answer), `cut` (half of the answer), `die`
    (half of what is sent is read, then the whole server is gone), or a function: what somebody else does just before.
    """

    method: str
    path: re.Pattern[str]
    how: int | str | Callable[[], object]
    left: float
    hits: int = 0


@dataclass
class Repository:
    """Commits of a repository, as {commit: {path: content}}, newest last; branches point at them."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        """Adds a commit; its name is a digest of all before it and of its content."""
        digest = hashlib.sha1(
            f"{len(self.commits)} {branch} {message}".encode(), usedforsecurity=False
        )
        for name in sorted(files):
            digest.update(name.encode() + files[name])
        commit = digest.hexdigest()
        self.commits[commit], self.messages[commit], self.branches[branch] = files, message, commit
        return commit

    def head(self, branch: str = "main") -> dict[str, bytes]:
        """The files of a branch."""
        return self.commits[self.branches[branch]]


class RefusalError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class HubDouble:
    """Both servers and their state; `start` and `stop` may be called again and keep ports and content."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.leaked: list[str] = []
        self.lock = threading.RLock()
        self.servers: list[ThreadingHTTPServer] = []
        self.ports = [0, 0]
        self.running = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def storage(self) -> str:
        """Where large files lie."""
        return f"http://127.0.0.1:{self.ports[1]}"

    def start(self) -> None:
        """Listens, on the ports of last time if there was one."""
        if self.running:
            return
        self.servers = []
        for index, port in enumerate(self.ports):
            server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
            server.daemon_threads = True
            server.double = self
            self.ports[index] = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self.servers.append(server)
        self.running = True

    def stop(self) -> None:
        """Refuses connections from now on, and answers no request on those that are open."""
        self.running = False
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.servers = []

    def fail(
        self,
        how: int | str | Callable[[], object],
        path: str,
        *,
        method: str = "",
        times: float = float("inf"),
    ) -> Fault:
        """Lets requests fail whose path matches; see `Fault`."""
        fault = Fault(method, re.compile(path), how, times)
        self.faults.append(fault)
        return fault

    def recover(self) -> None:
        """Forgets all faults, and starts again where one stopped the server."""
        self.faults.clear()
        for _ in range(100):  # a server that dies does so on its own thread
            if not self.servers or self.running:
                break
            time.sleep(0.02)
        self.start()

    def repository(
        self, name: str, files: dict[str, bytes] | None = None, **settings: bool
    ) -> Repository:
        """Makes a repository, as somebody did before the test."""
        made = self.repositories[name] = Repository(**settings)
        made.commit(
            "main",
            {".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})},
            "initial commit",
        )
        return made

    def fault_of(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets, which is used up by it."""
        with self.lock:
            for fault in self.faults:
                if fault.left > 0 and fault.method in ("", method) and fault.path.search(path):
                    fault.left -= 1
                    fault.hits += 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    """One connection. A route is a method of `_Routes`; this class does bytes, faults and refusals."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        """Any method: the routes tell them apart."""
        self._serve()

    def do_HEAD(self) -> None:
        """See `do_GET`."""
        self._serve()

    def do_POST(self) -> None:
        """See `do_GET`."""
        self._serve()

    def do_PUT(self) -> None:
        """See `do_GET`."""
        self._serve()

    def _serve(self) -> None:
        double: HubDouble = self.server.double
        if not double.running:
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        double.requests.append(f"{self.command} {parts.path}")
        fault = double.fault_of(self.command, parts.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault is not None and fault.how == "die":
            self.rfile.read(length // 2)
            self.close_connection, double.running = True, False
            threading.Thread(target=double.stop, daemon=True).start()
            return
        body = self.rfile.read(length)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = self._read_chunks()
        if fault is not None and fault.how == "close":
            self.close_connection = True
            return
        if fault is not None and isinstance(fault.how, int):
            self._answer(
                fault.how,
                b"<html><body>upstream is away</body></html>",
                {"Content-Type": "text/html"},
            )
            return
        if fault is not None and callable(fault.how):
            fault.how()
        try:
            with double.lock:
                routes = _Routes(
                    double,
                    self,
                    body,
                    {key: each[-1] for key, each in parse_qs(parts.query).items()},
                )
                status, content, headers = routes.answer(parts.path)
        except RefusalError as refusal:
            headers = {"Content-Type": "application/json", "X-Error-Message": str(refusal)}
            if refusal.code is not None:
                headers["X-Error-Code"] = refusal.code
            status, content = refusal.status, json.dumps({"error": str(refusal)}).encode()
        if fault is not None and fault.how == "lost":
            self.close_connection = True
            return
        self._answer(status, content, headers, cut=fault is not None and fault.how == "cut")

    def _read_chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str], *, cut: bool = False
    ) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked may have left
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True


Answer = tuple[int, bytes, dict[str, str]]


class _Routes:
    """What the Hub does on a request; every method but `answer` is one route."""

    def __init__(
        self, double: HubDouble, handler: _Handler, body: bytes, query: dict[str, str]
    ) -> None:
        self.double, self.handler, self.body, self.query = double, handler, body, query
        self.user: str | None = None
        self.may_write = False

    def answer(self, path: str) -> Answer:
        """The route's answer.

        Raises:
            RefusalError: it is not allowed, not there, or no route of this double.
        """
        authorization = self.handler.headers.get("Authorization")
        table = STORAGE_ROUTES if self.handler.server is self.double.servers[1] else HUB_ROUTES
        if table is STORAGE_ROUTES and authorization is not None:
            self.double.leaked.append(path)
        elif authorization is not None:
            account = ACCOUNTS.get(authorization.removeprefix("Bearer "))
            if account is None:
                raise RefusalError(401, "Invalid credentials in Authorization header")
            self.user, self.may_write = account
        for method, pattern, route in table:
            match = re.fullmatch(pattern, path)
            if match and self.handler.command in method.split():
                return route(
                    self,
                    **{name: unquote(text) for name, text in match.groupdict().items() if text},
                )
        self.double.unknown.append(f"{self.handler.command} {path}")
        raise RefusalError(404, f"no route {path}")

    # What is there, and who may --------------------------------------------------------------------------------

    def readable(self, repo: str) -> Repository:
        found = self.double.repositories.get(repo)
        if found is None or (found.private and self.user != repo.split("/")[0]):
            raise RefusalError(
                401 if self.user is None else 404, "Repository not found", "RepoNotFound"
            )
        return found

    def writable(self, repo: str) -> Repository:
        found = self.readable(repo)
        if not self.may_write or self.user != repo.split("/")[0]:
            raise RefusalError(403, f"You don't have the rights to write to {repo}")
        return found

    def commit_of(self, repository: Repository, revision: str) -> str:
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # Routes of the Hub -----------------------------------------------------------------------------------------

    def whoami(self) -> Answer:
        if self.user is None:
            raise RefusalError(401, "Invalid username or password.")
        return _json({"type": "user", "name": self.user, "orgs": []})

    def create(self) -> Answer:
        wanted = json.loads(self.body)
        if self.user is None:
            raise RefusalError(401, "Invalid username or password.")
        owner = wanted.get("organization") or self.user
        if not self.may_write or owner != self.user:
            raise RefusalError(
                403, f'You don\'t have the rights to create a model under the namespace "{owner}"'
            )
        if not NAME.fullmatch(wanted["name"]) or wanted["name"].endswith(".git"):
            raise RefusalError(400, f"Invalid repo name: {wanted['name']}")
        repo = f"{owner}/{wanted['name']}"
        answer = {"url": f"{self.double.url}/{repo}", "name": repo}
        if repo in self.double.repositories:
            return _json({**answer, "error": "You already created this model repo"}, 409)
        self.double.repository(repo, private=wanted.get("visibility") == "private")
        return _json(answer)

    def validate_yaml(self) -> Answer:
        """Of the card's metadata: it must be YAML, a mapping, and of the types that the Hub's own check wants."""
        content = json.loads(self.body)["content"]
        match = re.match(r"---\r?\n(.*?)\r?\n---(\r?\n|$)", content, flags=re.DOTALL)
        errors, warnings = [], []
        try:
            data = yaml.safe_load(match[1]) if match else None
        except yaml.YAMLError as error:
            return _json({"errors": [{"message": f"YAML: {error}"}], "warnings": []}, 400)
        if data is None:
            warnings.append({"message": "empty or missing yaml metadata in repo card"})
            data = {}
        for key, kind in (
            ("license", (str, list)),
            ("tags", list),
            ("pipeline_tag", str),
            ("model-index", list),
        ):
            if key in data and not isinstance(data[key], kind):
                errors.append({"message": f'"{key}" is not of an accepted type'})
        for model in data.get("model-index") or []:
            for result in model.get("results", []):
                missing = {"task", "dataset", "metrics"} - set(result)
                errors += [
                    {"message": f'"model-index[0].results[0].{name}" is required'}
                    for name in sorted(missing)
                ]
        return _json({"errors": errors, "warnings": warnings}, 400 if errors else 200)

    def info(self, repo: str, revision: str = "main") -> Answer:
        repository = self.readable(repo)
        commit = self.commit_of(repository, revision)
        return _json(
            {
                **{
                    "id": repo,
                    "modelId": repo,
                    "author": repo.split("/")[0],
                    "sha": commit,
                    "tags": [],
                },
                **{"private": repository.private, "gated": "manual" if repository.gated else False},
                "siblings": [{"rfilename": name} for name in sorted(repository.commits[commit])],
            }
        )

    def tree(self, repo: str, revision: str, folder: str = "") -> Answer:
        files = (repository := self.readable(repo)).commits[self.commit_of(repository, revision)]
        if folder and not any(name.startswith(f"{folder}/") for name in files):
            raise RefusalError(404, f"{folder} does not exist", "EntryNotFound")
        return _json(
            [_entry(name, files[name]) for name in sorted(files) if name.startswith(folder)]
        )

    def branch(self, repo: str, branch: str) -> Answer:
        repository = self.writable(repo)
        if branch in repository.branches:
            raise RefusalError(409, f"Reference already exists: refs/heads/{branch}")
        if re.fullmatch(r"refs/.*|.*\.\..*|.*[ ~^:?*\[\\].*|[0-9a-f]{40}", branch):
            raise RefusalError(400, f"Invalid reference for a branch: {branch}")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        repository.branches[branch] = self.commit_of(repository, start)
        return _json({})

    def preupload(self, repo: str, revision: str) -> Answer:
        is_request = self.query.get("create_pr") == "1"
        repository = self.readable(repo) if is_request else self.writable(repo)
        files = repository.commits[self.commit_of(repository, revision)]
        answers = []
        for each in json.loads(self.body)["files"]:
            name = each["path"]
            mode = "lfs" if name.endswith(LARGE) else "regular"
            oid = (
                _entry(name, files[name])["oid" if mode == "regular" else "sha256"]
                if name in files
                else None
            )
            answers.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return _json({"files": answers})

    def batch(self, repo: str) -> Answer:
        self.readable(repo)  # whoever opens a pull request stores objects too
        wanted = json.loads(self.body)
        objects = []
        for each in wanted["objects"]:
            actions = {
                "upload": {
                    "href": f"{self.double.storage}/objects/{each['oid']}?size={each['size']}"
                },
                "verify": {"href": f"{self.double.url}/{repo}.git/info/lfs/objects/verify"},
            }
            objects.append(
                {**each, **({} if each["oid"] in self.double.objects else {"actions": actions})}
            )
        return _json({"transfer": "basic", "objects": objects})

    def verify(self, repo: str) -> Answer:
        self.readable(repo)
        wanted = json.loads(self.body)
        if len(self.double.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise RefusalError(404, "the object was never stored")
        return _json({})

    def commit(self, repo: str, revision: str) -> Answer:
        is_request = self.query.get("create_pr") == "1"
        repository = self.readable(repo) if is_request else self.writable(repo)
        if revision not in repository.branches:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if (
            header.get("parentCommit", repository.branches[revision])
            != repository.branches[revision]
        ):
            raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.head(revision))
        for line in lines[1:]:
            key, value = line["key"], line["value"]
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.double.objects:
                    raise RefusalError(400, f"LFS pointer of {value['path']} points at nothing")
                files[value["path"]] = self.double.objects[value["oid"]]
            elif value["path"] not in files:
                raise RefusalError(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                del files[value["path"]]
        number = sum(branch.startswith("refs/pr/") for branch in repository.branches) + 1
        branch = f"refs/pr/{number}" if is_request else revision
        commit = repository.commit(branch, files, header["summary"])
        opened = f"{self.double.url}/{repo}/discussions/{number}"
        return _json(
            {
                **({"pullRequestUrl": opened} if is_request else {}),
                "success": True,
                "commitOid": commit,
                "commitUrl": f"{self.double.url}/{repo}/commit/{commit}",
            }
        )

    def resolve(self, repo: str, revision: str, path: str) -> Answer:
        repository = self.readable(repo)
        if repository.gated and self.user != repo.split("/")[0]:
            raise RefusalError(
                401 if self.user is None else 403,
                f"Access to model {repo} is restricted",
                "GatedRepo",
            )
        commit = self.commit_of(repository, revision)
        if path not in repository.commits[commit]:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        content = repository.commits[commit][path]
        entry = _entry(path, content)
        if "lfs" not in entry:
            return (
                200,
                content,
                {"ETag": f'"{entry["oid"]}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"},
            )
        self.double.objects.setdefault(entry["sha256"], content)  # of a repository that a test made
        linked = {"X-Linked-ETag": f'"{entry["sha256"]}"', "X-Linked-Size": str(len(content))}
        return (
            302,
            b"",
            {
                "Location": f"{self.double.storage}/{entry['sha256']}",
                "X-Repo-Commit": commit,
                **linked,
            },
        )

    # Routes of the storage -------------------------------------------------------------------------------------

    def store(self, oid: str) -> Answer:
        if hashlib.sha256(self.body).hexdigest() != oid or len(self.body) != int(
            self.query["size"]
        ):
            raise RefusalError(400, "the content is not what its digest says")
        self.double.objects[oid] = self.body
        return 200, b"", {}

    def stored(self, oid: str) -> Answer:
        content = self.double.objects[oid]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.handler.headers.get("Range", ""))
        if wanted is None:
            return 200, content, {}
        start = int(wanted[1])
        return (
            206,
            content[start:],
            {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"},
        )


def _json(value: object, status: int = 200) -> Answer:
    return status, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _entry(path: str, content: bytes) -> dict:
    """A file as `/tree` lists it: named by its blob in git, and by its content's digest where it is a large one."""
    blob = hashlib.sha1(
        f"blob {len(content)}\0".encode() + content, usedforsecurity=False
    ).hexdigest()
    entry = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if path.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        entry |= {
            "sha256": digest,
            "lfs": {"oid": digest, "size": len(content), "pointerSize": 130},
        }
    return entry


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
HUB_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    (
        "GET",
        "/api/agent-harnesses",
        lambda _: _json({"error": "none here"}, 404),
    ),  # some environments make it ask
    ("GET", "/api/whoami-v2", _Routes.whoami),
    ("POST", "/api/repos/create", _Routes.create),
    ("POST", "/api/validate-yaml", _Routes.validate_yaml),
    ("GET", f"/api/models/{_REPO}", _Routes.info),
    ("GET", f"/api/models/{_REPO}/revision/{_REVISION}", _Routes.info),
    ("GET", f"/api/models/{_REPO}/tree/{_REVISION}(/(?P<folder>.+))?", _Routes.tree),
    ("POST", f"/api/models/{_REPO}/branch/(?P<branch>[^/]+)", _Routes.branch),
    ("POST", f"/api/models/{_REPO}/preupload/{_REVISION}", _Routes.preupload),
    ("POST", f"/api/models/{_REPO}/commit/{_REVISION}", _Routes.commit),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Routes.batch),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/verify", _Routes.verify),
    ("GET HEAD", f"/{_REPO}/resolve/{_REVISION}/(?P<path>.+)", _Routes.resolve),
]
STORAGE_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("PUT", "/objects/(?P<oid>[0-9a-f]{64})", _Routes.store),
    ("GET HEAD", "/(?P<oid>[0-9a-f]{64})", _Routes.stored),
]
