"""A small Hugging Face Hub on loopback, for the real client: repositories, large files, commits, downloads.

It keeps commits in memory and can be told to fail: an answer of any status, a connection cut inside a file, a file that
is not the announced one. What was asked of it stands in `log`.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from huggingface_hub import constants

LARGE = (".safetensors", ".onnx", ".png")
PREFIXES = {"model": "", "space": "spaces/", "dataset": "datasets/"}


@dataclass
class Repository:
    private: bool
    sdk: str | None
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files):
        self.commits.append((hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest(), files))

    def files(self, revision):
        """Commit and files of a revision, or None."""
        known = dict(self.commits)
        revision = self.commits[-1][0] if revision == "main" else revision
        return (revision, known[revision]) if revision in known else None


@dataclass
class Fault:
    """What happens to requests whose "METHOD path" matches, so many times: a status, or "cut"."""

    match: str
    what: int | str
    times: int


class Hub:
    """The server; ``tokens`` maps a token to the organisations that it may write to."""

    def __init__(self):
        self.repositories, self.large, self.tokens = {}, {}, {"writer": {"org"}, "reader": set()}
        self.log, self.faults, self.forged = [], [], {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def settings(self, folder):
        """The client's constants for this Hub, to be put in the places of those that it read when it was imported."""
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, self.url)
        return {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(folder / "cache"),
            "HF_TOKEN_PATH": str(folder / "no_token"),
        }

    def fail(self, match, what, times=1000):
        self.faults.append(Fault(match, what, times))

    def asked(self, match):
        return [line for line in self.log if re.search(match, line)]

    def create(self, name, files, kind="model", private=False, sdk=None):
        """A repository that was there before."""
        repository = self.repositories[kind, name] = Repository(private, sdk)
        repository.commit({".gitattributes": b"*.onnx filter=lfs\n", **files})

    def files(self, name, kind="model"):
        return self.repositories[kind, name].commits[-1][1]

    def commits(self, name, kind="model"):
        return [commit for commit, _ in self.repositories[kind, name].commits]


def git_hash(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args):
        pass

    def respond(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append(f"{self.command} {path}")
        fault = next((f for f in self.hub.faults if f.times and re.search(f.match, f"{self.command} {path}")), None)
        self.cut = False
        if fault:
            fault.times -= 1
            self.cut = fault.what == "cut"
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length // 2 if self.cut else length)
        if self.cut and self.command != "GET":
            self.close_connection = True
            return self.connection.close()
        if fault and not self.cut:
            return self.send(fault.what, {"error": f"told to answer {fault.what}"})
        for command, pattern, answer in ROUTES:
            found = re.fullmatch(pattern, path)
            if found and command == self.command.replace("HEAD", "GET"):
                return answer(self, body, **found.groupdict())
        return self.send(404, {"error": "no such address"})

    do_GET = do_HEAD = do_POST = do_PUT = respond

    def send(self, status, value=None, headers=(), content=None):
        content = json.dumps(value).encode() if content is None else content
        self.send_response(status)
        for name, text in {
            "Content-Length": str(len(content)),
            "Content-Type": "application/json",
            **dict(headers),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2] if self.cut else content)
        if self.cut:
            self.wfile.flush()
            self.close_connection = True

    def refuse(self, status, code="", words=""):
        self.send(status, {"error": words}, {"X-Error-Code": code, "X-Error-Message": words})

    @property
    def rights(self):
        """Organisations that the caller may write to; None for an unknown token, or none."""
        return self.hub.tokens.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))

    def repository(self, kind, name):
        """The repository, or None after a refusal: private ones exist only for those who may know."""
        found = self.hub.repositories.get((kind, name))
        if found is None or (found.private and name.partition("/")[0] not in (self.rights or set())):
            return self.refuse(404 if self.rights is not None else 401, "RepoNotFound", "Repository not found")
        return found

    def writable(self, kind, name):
        if self.rights is None:
            return self.refuse(401, words="Invalid credentials in Authorization header")
        if name.partition("/")[0] not in self.rights:
            return self.refuse(403, words="You don't have the required permissions")
        return self.repository(kind, name)

    def make(self, body):
        asked = json.loads(body)
        name, kind = f"{asked['organization']}/{asked['name']}", asked.get("type", "model")
        if self.rights is None:
            return self.refuse(401, words="Invalid credentials in Authorization header")
        if asked["organization"] not in self.rights:
            return self.refuse(403, words="You don't have the rights to create a model under the namespace")
        url = {"url": f"{self.hub.url}/{PREFIXES[kind]}{name}"}
        if (kind, name) in self.hub.repositories:
            return self.send(409, {**url, "error": "You already created this repo"})
        self.hub.create(name, {}, kind, asked.get("visibility") == "private", asked.get("sdk"))
        return self.send(200, url)

    def validate(self, body):
        self.send(200, {"errors": [], "warnings": []})

    def preupload(self, body, kind, name, revision):
        if repository := self.writable(kind, name):
            there = repository.commits[-1][1]
            self.send(200, {"files": [self.mode(each["path"], there) for each in json.loads(body)["files"]]})

    @staticmethod
    def mode(path, there):
        large, content = path.endswith(LARGE), there.get(path)
        oid = None if content is None else hashlib.sha256(content).hexdigest() if large else git_hash(content)
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}

    def batch(self, body, prefix, name):
        if self.writable({text: kind for kind, text in PREFIXES.items()}[prefix or ""], name):
            objects = json.loads(body)["objects"]
            for each in objects:
                if each["oid"] not in self.hub.large:
                    each["actions"] = {"upload": {"href": f"{self.hub.url}/large/{each['oid']}"}}
            self.send(200, {"transfer": "basic", "objects": objects})

    def put(self, body, oid):
        if hashlib.sha256(body).hexdigest() != oid:
            return self.refuse(400, words="content does not match")
        self.hub.large[oid] = body
        return self.send(200, {})

    def commit(self, body, kind, name, revision):
        if repository := self.writable(kind, name):
            files = dict(repository.commits[-1][1])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.large[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            repository.commit(files)
            oid = repository.commits[-1][0]
            self.send(
                200, {"commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "pullRequestUrl": None}
            )

    def at(self, kind, name, revision):
        """Repository, commit and files, or None after a refusal."""
        repository = self.repository(kind, name)
        found = repository and repository.files(revision or "main")
        if repository and not found:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
        return (repository, *found) if found else None

    def info(self, body, kind, name, revision=None):
        if found := self.at(kind, name, revision):
            repository, commit, files = found
            siblings = [{"rfilename": path} for path in files]
            if parse_qs(urlsplit(self.path).query).get("blobs"):
                siblings = [{"rfilename": path, **self.large_file(path, files[path], "sha256")} for path in files]
            values = {"id": name, "sha": commit, "private": repository.private, "siblings": siblings, "tags": []}
            self.send(200, {**values, **({"sdk": repository.sdk} if repository.sdk else {})})

    def tree(self, body, kind, name, revision):
        if found := self.at(kind, name, revision):
            _, _, files = found
            entries = [
                {
                    "type": "file",
                    "path": path,
                    "oid": git_hash(files[path]),
                    **self.large_file(path, files[path], "oid"),
                }
                for path in files
            ]
            self.send(200, entries)

    @staticmethod
    def large_file(path, content, key):
        size = {"size": len(content)}
        if not path.endswith(LARGE):
            return size
        return {**size, "lfs": {key: hashlib.sha256(content).hexdigest(), **size, "pointerSize": 134}}

    def resolve(self, body, prefix, name, revision, path):
        found = self.at({text: kind for kind, text in PREFIXES.items()}[prefix or ""], name, revision)
        if not found:
            return None
        _, commit, files = found
        if path not in files:
            return self.send(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = files[path]
        etag = hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else git_hash(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if path.endswith(LARGE):
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        content = self.hub.forged.get(path, content)
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if not span:
            return self.send(200, headers=headers, content=content)
        start = int(span[1])
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(206, headers=headers, content=content[start:])


API = r"/api/(?P<kind>model|space|dataset)s/(?P<name>[^/]+/[^/]+)"
FILES = r"/(?P<prefix>spaces/|datasets/)?(?P<name>[^/]+/[^/]+)"
ROUTES = [
    ("POST", r"/api/repos/create", Handler.make),
    ("POST", r"/api/validate-yaml", Handler.validate),
    ("POST", rf"{API}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    ("POST", rf"{FILES}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/large/(?P<oid>\w+)", Handler.put),
    ("POST", rf"{API}/commit/(?P<revision>[^/]+)", Handler.commit),
    ("GET", rf"{API}(/revision/(?P<revision>[^/]+))?", Handler.info),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)", Handler.tree),
    ("GET", rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]
