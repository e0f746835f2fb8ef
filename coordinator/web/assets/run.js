// A run, kept up to date: whenever it changed, the server's own page is fetched and its parts are put in place.
import { copyButtons } from "./copy.js";
import { follow, headers } from "./stream.js";

export const liveRun = (run) => {
  copyButtons(run);
  if (!("live" in run.dataset)) return;
  let wanted = false;
  let loading = null;

  const refresh = () => {
    wanted = true;
    loading ??= load().finally(() => { loading = null; });
    return loading;
  };
  const load = async () => {
    while (wanted) {
      wanted = false;
      const answer = await fetch(location.pathname, { headers: headers() });
      if (!answer.ok) return;
      // Parsed apart from this page: nothing in it runs. It is what the server would show on a reload.
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("run");
      if (!fresh) return;
      put(fresh);
      // The tab tells how it stands.
      document.title = page.title;
      const tab = (of) => of.querySelector("link[rel=icon]");
      if (tab(document).href !== tab(page).href) tab(document).href = tab(page).href;
    }
  };

  const put = (fresh) => {
    const open = new Set([...run.querySelectorAll("details[open]")].map((one) => one.dataset.key));
    const closed = new Set([...run.querySelectorAll("details:not([open])")].map((one) => one.dataset.key));
    for (const details of fresh.querySelectorAll("details")) {
      if (open.has(details.dataset.key)) details.open = true;
      else if (closed.has(details.dataset.key) && !details.open) details.open = false;
    }
    const held = document.activeElement;
    const focused = held?.closest("details")?.dataset.key;
    const actions = run.querySelector("#actions");
    fresh.querySelector("#actions").replaceWith(actions);
    copyButtons(fresh);
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
