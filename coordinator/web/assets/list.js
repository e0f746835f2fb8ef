// The list of runs, kept up to date.
import { make, moment, state } from "./dom.js";
import { follow } from "./stream.js";

const MOST = 50;

const repository = (address) => {
  const [, owner, ...name] = address.split(":");
  return name.length ? name.join(":") + " of " + owner.slice(0, 8) : address;
};

const row = (run) =>
  make("tr", { "data-id": run.id },
    make("td", {}, state(run.status)),
    make("td", {}, make("a", { href: "/runs/" + run.id }, (run.name || "run") + " #" + run.number),
      make("span", { class: "quiet" }, " run " + run.serial),
      run.waits ? make("span", { class: "quiet" }, " " + run.waits) : null),
    make("td", { class: "any" }, repository(run.repository)),
    make("td", { class: "any" }, run.branch + " ", make("code", {}, run.commit.slice(0, 10))),
    make("td", {}, run.event),
    make("td", {}, make("code", {}, run.actor.slice(0, 8))),
    make("td", {}, moment(run.created_at)));

const belongs = (run, query) => {
  const status = query.get("status");
  if (status && run.status !== status) return false;
  return query.get("unfinished") !== "true" || run.phase !== "done";
};

export const liveList = (table) => {
  if (!("live" in table.dataset)) return;
  const body = table.tBodies[0];
  const query = new URLSearchParams(table.dataset.query);
  follow("/api/changes?" + query, {
    run: (run) => {
      const old = [...body.rows].find((one) => one.dataset.id === run.id);
      if (!belongs(run, query)) return old?.remove();
      const fresh = row(run);
      if (old) {
        const focused = old.contains(document.activeElement);
        old.replaceWith(fresh);
        if (focused) fresh.querySelector("a").focus();
      } else {
        body.prepend(fresh);
        table.caption.textContent = "Newest first; times are UTC.";
        while (body.rows.length > MOST) body.lastElementChild.remove();
      }
    },
  }, { last: table.dataset.change });
};
