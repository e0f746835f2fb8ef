"""Tasks a second through Celery with Redis, acknowledged late: the tasks are queued before the clock starts."""

import os
import subprocess
import sys
import time

from celery import Celery

url = os.environ["REDIS"]
app = Celery("bench", broker=url, backend=url)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, worker_hijack_root_logger=False)


@app.task(name="noop")
def noop():
    return 1


if sys.argv[1] == "worker":
    options = ["-c", "2", "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", *options])
else:
    tasks = [noop.delay() for _ in range(int(sys.argv[1]))]
    worker = subprocess.Popen([sys.executable, __file__, "worker"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        tasks[0].get(timeout=60)
        start = time.perf_counter()
        for task in tasks:
            task.get(timeout=120)
        print((len(tasks) - 1) / (time.perf_counter() - start))
    finally:
        worker.terminate()
        worker.wait()
