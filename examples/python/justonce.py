"""A worker for JustOnce in Python, without other packages. Copy this file.

    import justonce

    def count_words(task):
        return {"words": len(task.params["text"].split())}

    justonce.Worker("http://127.0.0.1:8080", {"count_words": count_words}).run()

A handler gets a `Task` and gives back what JSON can hold. What it raises is tried again, but for `Permanent`, which
fails the task for good. One worker runs one task at a time: start as many as you need.
"""

import json
import os
import random
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime
from email.utils import parsedate_to_datetime

WAIT_SECONDS = 30  # how long one question for work is held; the service allows 50
PAUSE_SECONDS = 0.2  # before a repeat; doubles up to
PAUSE_SECONDS_MAX = 5
REPORT_SECONDS_MAX = 120  # how long the end of an attempt is told again and again


class Permanent(Exception):
    """Another attempt could not help."""

    def __init__(self, message, code="worker-failed"):
        super().__init__(message)
        self.code = code


class Cancelled(Exception):
    """The task was cancelled, or its lease is lost: a result would be refused."""


class Refused(Exception):
    """The service said no, and would say it again."""

    def __init__(self, status, problem):
        super().__init__(f"{status} {problem.get('code')}: {problem.get('detail')}")
        self.status = status
        self.code = problem.get("code")


class Task:
    """One attempt. `id`, `type`, `user`, `attempt`, `params`, `idempotency_key` and `file` are the task's.
    `fencing_token` only grows from one attempt of a task to the next: pass it on to what must refuse late writes."""

    def __init__(self, worker, lease, seconds):
        self._worker = worker
        self._path = "/v1/leases/" + lease["lease_id"]
        self.fencing_token = lease["fencing_token"]
        self._beat_every = seconds / 3
        self._progress = None
        self._wake = threading.Event()
        self._is_over = False
        self._is_cancelled = False
        self.data = lease["task"]
        for name in ("id", "type", "user", "attempt", "params", "idempotency_key", "file"):
            setattr(self, name, self.data[name])

    def progress(self, done, total=None, message=None):
        """Says how far the work has come. Raises `Cancelled` when it is to stop."""
        self._progress = {"done": done, "total": total, "message": message}
        self._wake.set()
        self.check()

    def check(self):
        """Raises `Cancelled` when the work is to stop."""
        if self._is_cancelled:
            raise Cancelled()

    def open_file(self, sha256=None):
        """The bytes of the task's file, to be read and closed; `sha256` says which of several."""
        query = f"?sha256={sha256}" if sha256 else ""
        return self._worker._open("GET", self._path + "/file" + query, None, timeout=60)

    def _beat(self):
        """Renews the lease in good time, until the attempt is over."""
        beaten_at = time.monotonic()
        while not self._is_over:
            # Progress goes along early, at most four times a second.
            if self._wake.wait(max(0, beaten_at + self._beat_every - time.monotonic())):
                self._wake.clear()
                time.sleep(max(0, beaten_at + min(0.25, self._beat_every) - time.monotonic()))
            if self._is_over:
                return
            beaten_at = time.monotonic()
            body, self._progress = {"progress": self._progress}, None
            try:
                beat = self._tell("heartbeat", body, timeout=self._beat_every + 1)
                if beat["cancel_requested"]:
                    self._is_cancelled = True
            except Refused as refused:
                self._worker.log(f"{self.id}: {refused}")
                self._is_cancelled = True
                return
            except OSError as error:
                self._worker.log(f"{self.id}: no heartbeat: {error}")

    def _end(self, verb, body):
        """Tells how the attempt ended, again and again until it is known."""
        until = time.monotonic() + REPORT_SECONDS_MAX
        for pause in pauses():
            try:
                return self._tell(verb, body, timeout=30)
            except OSError as error:
                if time.monotonic() + pause > until:
                    raise
                self._worker.log(f"{self.id}: not told yet: {error}")
                time.sleep(pause)

    def _tell(self, verb, body, timeout):
        body = {"fencing_token": self.fencing_token, **body}
        return self._worker._ask("POST", f"{self._path}/{verb}", body, timeout)[0]


class Worker:
    def __init__(self, url, handlers, key=None, name=None):
        self._url = url.rstrip("/")
        self._handlers = handlers
        self._key = key
        self._name = name or f"{socket.gethostname()}-{os.getpid()}"
        self._is_stopping = False
        self._is_waiting = False

    def run(self):
        """Works until SIGTERM or SIGINT; what has begun is brought to its end first."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        while not self._is_stopping:
            lease, seconds = self._lease()
            if lease:
                self._work(Task(self, lease, seconds))

    def log(self, text):
        print(text, file=sys.stderr, flush=True)

    def _stop(self, number, frame):
        self._is_stopping = True
        if self._is_waiting:
            self._is_waiting = False
            raise Cancelled()

    def _lease(self):
        """The next task and for how many seconds it is ours, or nothing."""
        # With the same nonce, a question whose answer was lost gives what it gave.
        body = {
            "types": list(self._handlers),
            "wait": WAIT_SECONDS,
            "worker": self._name,
            "nonce": uuid.uuid4().hex,
        }
        try:
            return self._ask_for_work(body)
        except Cancelled:
            # The answer may have been on its way.
            try:
                return self._first_lease({**body, "wait": 0}, timeout=5)
            except (Refused, OSError):
                return None, 0

    def _ask_for_work(self, body):
        """Until there is an answer. Raises `Cancelled` when the worker is to stop."""
        for pause in pauses():
            try:
                self._is_waiting = True
                if self._is_stopping:
                    return None, 0
                return self._first_lease(body, WAIT_SECONDS + 15)
            except OSError as error:
                self.log(f"no answer: {error}")
                time.sleep(pause)
            finally:
                self._is_waiting = False

    def _first_lease(self, body, timeout):
        answer, told_at = self._ask("POST", "/v1/leases", body, timeout)
        for lease in answer["leases"]:
            expires_at = datetime.fromisoformat(lease["lease_expires_at"].replace("Z", "+00:00"))
            # By the service's clock, which may not be ours.
            return lease, max(1, (expires_at - told_at).total_seconds())
        return None, 0

    def _work(self, task):
        beats = threading.Thread(target=task._beat, daemon=True)
        beats.start()
        try:
            verb, body = self._attempt(task)
        finally:
            task._is_over = True
            task._wake.set()
            beats.join()
        try:
            end = task._end(verb, body)
            self.log(f"{task.id}: {end['state']}")
        except (Refused, OSError) as error:
            # Someone else runs it by now, or will.
            self.log(f"{task.id}: {error}")

    def _attempt(self, task):
        def failed(message, code, permanent):
            error = {"message": message, "code": code}
            return "fail", {"error": error, "permanent": permanent}

        try:
            result = self._handlers[task.type](task)
            json.dumps(result)
            return "complete", {"result": result}
        except Cancelled:
            return failed("the worker has stopped", "cancelled", False)
        except Permanent as error:
            return failed(str(error), error.code, True)
        except Exception as error:  # whatever a handler does, the worker goes on
            return failed(f"{type(error).__name__}: {error}", "worker-failed", False)

    def _ask(self, method, path, body, timeout):
        """The answer, and when the service gave it. Raises OSError for what may work later."""
        with self._open(method, path, body, timeout) as answer:
            return json.load(answer), parsedate_to_datetime(answer.headers["Date"])

    def _open(self, method, path, body, timeout):
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = "Bearer " + self._key
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            return urllib.request.urlopen(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
            if error.code in (408, 429) or error.code >= 500:
                raise OSError(f"{error.code} from the service") from None
            try:
                problem = json.loads(text)
            except ValueError:
                problem = {"detail": text.decode(errors="replace")}
            raise Refused(error.code, problem) from None


def pauses():
    """Seconds before each repeat, spread so that workers do not move in step."""
    pause = PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.8, 1.2)
        pause = min(pause * 2, PAUSE_SECONDS_MAX)
