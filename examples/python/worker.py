"""Counts words, as a worker of JustOnce.

    [task_types.count_words]
    runner = { external = true }

    $ JUSTONCE_URL=http://127.0.0.1:8080 python3 worker.py
"""

import os
import time

import justonce


def count_words(task):
    """Of the file, or of `text`; `pause_seconds` before each line makes it slow, to try things out."""
    if task.file:
        with task.open_file() as file:
            text = file.read().decode()
    elif "text" in task.params:
        text = task.params["text"]
    else:
        raise justonce.Permanent("there is neither a file nor a text", code="no-text")
    lines = text.splitlines()
    words = 0
    for number, line in enumerate(lines):
        task.progress(number, len(lines), f"line {number + 1}")
        time.sleep(task.params.get("pause_seconds", 0))
        words += len(line.split())
    return {"lines": len(lines), "words": words}


if __name__ == "__main__":
    worker = justonce.Worker(
        os.environ.get("JUSTONCE_URL", "http://127.0.0.1:8080"),
        {"count_words": count_words},
        key=os.environ.get("JUSTONCE_KEY"),
    )
    worker.run()
