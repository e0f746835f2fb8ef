// A run, kept up to date: whenever it changed, the server's own page is fetched and its parts are put in place.
import { copyButtons } from "./copy.js";
import { coalesced, freshPage, keepOpen, showTab } from "./fresh.js";
import { paintLines } from "./log_row.js";
import { follow } from "./stream.js";

export const liveRun = (run) => {
  copyButtons(run);
  paintLines(run);
  if (!("live" in run.dataset)) return;

  const refresh = coalesced(async () => {
    const page = await freshPage();
    const fresh = page?.getElementById("run");
    if (!fresh) return;
    put(fresh);
    showTab(page);
  });

  const put = (fresh) => {
    keepOpen(run, fresh);
    const held = document.activeElement;
    const focused = held?.closest("details")?.dataset.key;
    const actions = run.querySelector("#actions");
    fresh.querySelector("#actions").replaceWith(actions);
    copyButtons(fresh);
    paintLines(fresh);
    run.replaceChildren(...fresh.childNodes);
    for (const name of ["version", "status", "live"]) {
      if (name in fresh.dataset) run.dataset[name] = fresh.dataset[name];
      else delete run.dataset[name];
    }
    run.dispatchEvent(new Event("refreshed"));
    // The keyboard stays where it was: at what was put back, or at the job that it was in.
    const job = () => [...run.querySelectorAll("details")].find((one) => one.dataset.key === focused)?.querySelector("summary");
    if (held !== document.activeElement) (held.isConnected ? held : job())?.focus({ preventScroll: true });
  };

  // The last events of a run are signed and sent after its end.
  const settle = async () => {
    for (let tries = 0; tries < 20; tries++) {
      await refresh();
      if (!run.querySelector("td .queued")) return;
      await new Promise((done) => setTimeout(done, 1500));
    }
  };

  follow("/api/runs/" + encodeURIComponent(run.dataset.run) + "/logs?format=changes", {
    run: (data) => (String(data.version) === run.dataset.version ? null : refresh()),
    end: settle,
  });
};
