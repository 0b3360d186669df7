// Counts words, as a worker of JustOnce.
//
//     [task_types.count_words]
//     runner = { external = true }
//
//     $ JUSTONCE_URL=http://127.0.0.1:8080 node worker.mjs

import { setTimeout as sleep } from "node:timers/promises";

import { Permanent, Worker } from "./justonce.mjs";

/** Of the file, or of `text`; `pause_seconds` before each line makes it slow, to try things out. */
async function countWords(task) {
  let text = task.params.text;
  if (task.file) text = await (await task.fetchFile()).text();
  if (text === undefined) throw new Permanent("there is neither a file nor a text", "no-text");
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  let words = 0;
  for (const [number, line] of lines.entries()) {
    task.progress(number, lines.length, `line ${number + 1}`);
    await sleep((task.params.pause_seconds ?? 0) * 1_000, undefined, { signal: task.signal });
    words += line.split(/\s+/).filter(Boolean).length;
  }
  return { lines: lines.length, words };
}

const url = process.env.JUSTONCE_URL ?? "http://127.0.0.1:8080";
await new Worker(url, { count_words: countWords }, { key: process.env.JUSTONCE_KEY }).run();
