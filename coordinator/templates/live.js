// Follows one run. Everything from outside enters the page as text, never as markup.
"use strict";
(() => {
  const run = document.body.dataset.run;
  const log = document.getElementById("log");
  const blocks = new Map();
  // Older lines leave the page beyond this; the whole log stays linked.
  const MOST = 20000;
  const ansi = /\u001b\[[0-9;?]*[ -\/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[@-_]/g;

  const element = (name, text, kind) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };

  const block = (job, attempt) => {
    const key = attempt + " " + job;
    if (!blocks.has(key)) {
      const pre = document.createElement("pre");
      log.append(element("h3", attempt > 1 ? job + ", attempt " + attempt : job), pre);
      blocks.set(key, pre);
    }
    return blocks.get(key);
  };

  const source = new EventSource("/api/runs/" + encodeURIComponent(run) + "/logs");

  source.addEventListener("log", (event) => {
    const { job, attempt, lines } = JSON.parse(event.data);
    const pre = block(job, attempt);
    for (const line of lines) {
      if (line.mark) {
        const end = line.mark.ended ? ": " + line.mark.conclusion + ", " + line.mark.duration_ms + " ms" : "";
        pre.append(element("span", line.mark.name + end + "\n", "mark"));
      } else {
        pre.append(element("span", (line.text || "").replace(ansi, ""), line.stream));
      }
    }
    while (pre.childNodes.length > MOST) pre.firstChild.remove();
  });

  source.addEventListener("run", (event) => {
    const data = JSON.parse(event.data);
    const word = data.conclusion || data.phase;
    const state = document.getElementById("state");
    state.textContent = word;
    state.className = word;
    document.getElementById("waits").textContent = data.waits || "";
    const jobs = document.getElementById("jobs");
    const open = new Set([...jobs.querySelectorAll("details[open]")].map((details) => details.dataset.key));
    jobs.replaceChildren(...data.jobs.map((job) => {
      const details = document.createElement("details");
      details.dataset.key = job.key;
      details.open = open.has(job.key);
      const summary = element("summary", job.name + " ");
      const stand = job.conclusion || job.phase;
      summary.append(element("span", stand, stand), " " + (job.waits || ""));
      const steps = document.createElement("ol");
      for (const step of job.steps) {
        const item = element("li", step.name + " ");
        item.append(element("span", step.conclusion, step.conclusion), " " + step.duration_ms + " ms");
        steps.append(item);
      }
      const annotations = document.createElement("ul");
      for (const annotation of job.annotations) {
        const place = annotation.file ? annotation.file + (annotation.line ? ":" + annotation.line : "") : "";
        annotations.append(element("li", annotation.level + " " + place + " " + annotation.message, annotation.level));
      }
      details.append(summary, steps, annotations);
      if (job.summary) details.append(element("pre", job.summary));
      return details;
    }));
  });

  for (const last of ["end", "failed"]) source.addEventListener(last, () => source.close());
})();
