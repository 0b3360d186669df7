// A worker for JustOnce in JavaScript: Node.js 20 or newer, without other packages. Copy this file.
//
//     import { Worker } from "./justonce.mjs";
//
//     const countWords = (task) => ({ words: task.params.text.split(/\s+/).length });
//     await new Worker("http://127.0.0.1:8080", { count_words: countWords }).run();
//
// A handler gets a `Task` and gives back, or promises, what JSON can hold. What it throws is tried again, but for
// `Permanent`, which fails the task for good. One worker runs one task at a time: start as many as you need.

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

const WAIT_SECONDS = 30; // how long one question for work is held; the service allows 50
const PAUSE_MS = 200; // before a repeat; doubles up to
const PAUSE_MS_MAX = 5_000;
const REPORT_MS_MAX = 120_000; // how long the end of an attempt is told again and again

/** Another attempt could not help. */
export class Permanent extends Error {
  constructor(message, code = "worker-failed") {
    super(message);
    this.code = code;
  }
}

/** The task was cancelled, or its lease is lost: a result would be refused. */
export class Cancelled extends Error {}

/** The service said no, and would say it again. */
export class Refused extends Error {
  constructor(status, problem) {
    super(`${status} ${problem.code}: ${problem.detail}`);
    this.status = status;
    this.code = problem.code;
  }
}

/**
 * One attempt. `id`, `type`, `user`, `attempt`, `params`, `idempotency_key` and `file` are the task's. `fencingToken`
 * only grows from one attempt of a task to the next: pass it on to what must refuse late writes.
 */
export class Task {
  #worker;
  #path;
  #beatEveryMs;
  #progress = null;
  #cancel = new AbortController();
  #over = new AbortController();
  #wake = () => {};

  constructor(worker, lease, leaseMs) {
    this.#worker = worker;
    this.#path = `/v1/leases/${lease.lease_id}`;
    this.fencingToken = lease.fencing_token;
    this.#beatEveryMs = Math.ceil(leaseMs / 3);
    this.data = lease.task;
    const { id, type, user, attempt, params, idempotency_key, file } = lease.task;
    Object.assign(this, { id, type, user, attempt, params, idempotency_key, file });
  }

  /** Aborts when the work is to stop. */
  get signal() {
    return this.#cancel.signal;
  }

  /** Says how far the work has come. Throws `Cancelled` when it is to stop. */
  progress(done, total = null, message = null) {
    this.#progress = { done, total, message };
    this.#wake();
    this.check();
  }

  /** Throws `Cancelled` when the work is to stop. */
  check() {
    if (this.signal.aborted) throw new Cancelled();
  }

  /** The task's file, as the response of a fetch; `sha256` says which of several. */
  fetchFile(sha256) {
    const query = sha256 ? `?sha256=${sha256}` : "";
    return this.#worker._fetch("GET", `${this.#path}/file${query}`, undefined, this.signal);
  }

  /** Renews the lease in good time, until the attempt is over. */
  async _beat() {
    const over = this.#over.signal;
    let beatenAt = Date.now();
    while (!over.aborted) {
      const { promise: woken, resolve } = withResolvers();
      this.#wake = resolve;
      if (this.#progress) resolve();
      const due = wait(beatenAt + this.#beatEveryMs - Date.now(), over);
      await Promise.race([due, woken]);
      // Progress goes along early, at most four times a second.
      await wait(beatenAt + Math.min(250, this.#beatEveryMs) - Date.now(), over);
      if (over.aborted) return;
      beatenAt = Date.now();
      const progress = this.#progress;
      this.#progress = null;
      try {
        const timeout = AbortSignal.timeout(this.#beatEveryMs + 1_000);
        const beat = await this.#tell("heartbeat", { progress }, timeout);
        if (beat.cancel_requested) this.#cancel.abort(new Cancelled());
      } catch (error) {
        this.#worker.log(`${this.id}: no heartbeat: ${error.message}`);
        if (error instanceof Refused) return this.#cancel.abort(new Cancelled());
      }
    }
  }

  _isOver() {
    this.#over.abort();
    this.#wake();
  }

  /** Tells how the attempt ended, again and again until it is known. */
  async _end(verb, body) {
    const until = Date.now() + REPORT_MS_MAX;
    for (const pause of pauses()) {
      try {
        return await this.#tell(verb, body, AbortSignal.timeout(30_000));
      } catch (error) {
        if (error instanceof Refused || Date.now() + pause > until) throw error;
        this.#worker.log(`${this.id}: not told yet: ${error.message}`);
        await sleep(pause);
      }
    }
  }

  async #tell(verb, body, signal) {
    const told = { fencing_token: this.fencingToken, ...body };
    const answer = await this.#worker._fetch("POST", `${this.#path}/${verb}`, told, signal);
    return answer.json();
  }
}

export class Worker {
  #url;
  #handlers;
  #key;
  #name;
  #stop = new AbortController();

  constructor(url, handlers, { key, name } = {}) {
    this.#url = url.replace(/\/+$/, "");
    this.#handlers = handlers;
    this.#key = key;
    this.#name = name ?? `${hostname()}-${process.pid}`;
  }

  /** Works until `stop()`, SIGTERM or SIGINT; what has begun is brought to its end first. */
  async run() {
    const stop = () => this.stop();
    process.on("SIGTERM", stop).on("SIGINT", stop);
    while (!this.#stop.signal.aborted) {
      const [lease, leaseMs] = await this.#lease();
      if (lease) await this.#work(new Task(this, lease, leaseMs));
    }
    process.off("SIGTERM", stop).off("SIGINT", stop);
  }

  stop() {
    this.#stop.abort();
  }

  log(text) {
    console.error(text);
  }

  /** The next task and for how many milliseconds it is ours, or nothing. */
  async #lease() {
    // With the same nonce, a question whose answer was lost gives what it gave.
    const body = {
      types: Object.keys(this.#handlers),
      wait: WAIT_SECONDS,
      worker: this.#name,
      nonce: randomUUID(),
    };
    for (const pause of pauses()) {
      const timeout = AbortSignal.timeout((WAIT_SECONDS + 15) * 1_000);
      const signal = AbortSignal.any([this.#stop.signal, timeout]);
      try {
        return await this.#fetchLeases(body, signal);
      } catch (error) {
        if (error instanceof Refused) throw error;
        if (this.#stop.signal.aborted) return this.#lastLease(body);
        this.log(`no answer: ${error.cause?.message ?? error.message}`);
        await wait(pause, this.#stop.signal);
      }
    }
  }

  /** The answer may have been on its way when the worker was told to stop. */
  async #lastLease(body) {
    const signal = AbortSignal.timeout(5_000);
    return this.#fetchLeases({ ...body, wait: 0 }, signal).catch(() => []);
  }

  async #fetchLeases(body, signal) {
    const answer = await this._fetch("POST", "/v1/leases", body, signal);
    const { leases } = await answer.json();
    if (leases.length === 0) return [];
    // By the service's clock, which may not be ours.
    const leaseMs = Date.parse(leases[0].lease_expires_at) - Date.parse(answer.headers.get("date"));
    return [leases[0], Math.max(1_000, leaseMs)];
  }

  async #work(task) {
    const beats = task._beat();
    const [verb, body] = await this.#attempt(task);
    task._isOver();
    await beats;
    try {
      const end = await task._end(verb, body);
      this.log(`${task.id}: ${end.state}`);
    } catch (error) {
      // Someone else runs it by now, or will.
      this.log(`${task.id}: ${error.message}`);
    }
  }

  async #attempt(task) {
    const failed = (message, code, permanent) => ["fail", { error: { message, code }, permanent }];
    try {
      const result = await this.#handlers[task.type](task);
      return ["complete", { result: result ?? null }];
    } catch (error) {
      if (task.signal.aborted) return failed("the worker has stopped", "cancelled", false);
      if (error instanceof Permanent) return failed(error.message, error.code, true);
      // Whatever a handler does, the worker goes on.
      return failed(String(error), "worker-failed", false);
    }
  }

  /** The answer, if it is a good one. Other errors than `Refused` are for what may work later. */
  async _fetch(method, path, body, signal) {
    const headers = { "content-type": "application/json" };
    if (this.#key) headers.authorization = `Bearer ${this.#key}`;
    const text = body === undefined ? undefined : JSON.stringify(body);
    const answer = await fetch(this.#url + path, { method, headers, body: text, signal });
    if (answer.ok) return answer;
    const said = await answer.text();
    if ([408, 429].includes(answer.status) || answer.status >= 500) {
      throw new Error(`${answer.status} from the service`);
    }
    let problem = { detail: said };
    try {
      problem = JSON.parse(said);
    } catch {
      // Not from the service itself.
    }
    throw new Refused(answer.status, problem);
  }
}

/** Milliseconds before each repeat, spread so that workers do not move in step. */
function* pauses() {
  for (let pause = PAUSE_MS; ; pause = Math.min(pause * 2, PAUSE_MS_MAX)) {
    yield pause * (0.8 + 0.4 * Math.random());
  }
}

/** Resolves after so long, or when `signal` aborts. */
function wait(ms, signal) {
  return sleep(Math.max(0, ms), undefined, { signal }).catch(() => {});
}

function withResolvers() {
  let resolve;
  const promise = new Promise((settle) => (resolve = settle));
  return { promise, resolve };
}
