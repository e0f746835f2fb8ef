// The list of runs, kept up to date.
import { icon, make, mark, person } from "./dom.js";
import { follow } from "./stream.js";
import { ago, moment, span } from "./time.js";

const MOST = 50;

const repository = (address) => address.split(":").slice(2).join(":") || address;

const took = (run) => {
  if (!run.started_at) return null;
  if (!run.ended_at) return make("span", { "data-since": String(run.started_at) }, span(Date.now() - run.started_at));
  return make("span", {}, span(run.ended_at - run.started_at));
};

const row = (run) =>
  make("li", { "data-id": run.id }, mark(run.status),
    make("div", { class: "what" },
      make("div", { class: "line" }, make("a", { class: "whole", href: "/runs/" + run.id }, (run.name || "run") + " #" + run.number),
        run.attempt > 1 ? make("span", { class: "tag" }, "attempt " + run.attempt) : null,
        run.title ? make("span", { class: "subject" }, run.title) : null),
      make("div", { class: "line under" }, make("span", { class: "repository" }, icon("repository"), repository(run.repository)),
        run.branch ? make("span", { class: "chip" }, run.branch) : null, person(run.actor, run.actor_name),
        make("time", { datetime: moment(run.created_at).replace(" ", "T") + "Z", title: moment(run.created_at) + " UTC", "data-ago": true }, ago(run.created_at)),
        run.waits ? make("span", { class: "waits" }, run.waits) : null,
        run.failed ? make("span", { class: "what-failed" }, run.failed) : null)),
    make("div", { class: "took" }, took(run)));

const belongs = (run, query) => {
  const status = query.get("status");
  if (status && !status.split(",").includes(run.status)) return false;
  return query.get("unfinished") !== "true" || run.phase !== "done";
};

export const liveList = (list) => {
  if (!("live" in list.dataset)) return;
  const query = new URLSearchParams(list.dataset.query);
  const told = document.getElementById("list-state");
  const arrange = () => { document.getElementById("empty").hidden = list.childElementCount > 0; };
  follow("/api/changes?" + query, {
    run: (run) => {
      const old = [...list.children].find((one) => one.dataset.id === run.id);
      if (!belongs(run, query)) {
        old?.remove();
        return arrange();
      }
      const fresh = row(run);
      if (old) {
        const focused = old.contains(document.activeElement);
        old.replaceWith(fresh);
        if (focused) fresh.querySelector("a").focus();
      } else {
        fresh.classList.add("fresh");
        list.prepend(fresh);
        told.textContent = "New: " + fresh.querySelector("a").textContent;
        while (list.childElementCount > MOST) list.lastElementChild.remove();
      }
      arrange();
    },
  }, { last: list.dataset.change });
};
