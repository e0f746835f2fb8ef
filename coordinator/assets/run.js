// A run, kept up to date: whenever it changed, the server's own page is fetched and its parts are put in place.
import { follow, headers } from "./stream.js";

export const liveRun = (run) => {
  if (!("live" in run.dataset)) return;
  let wanted = false;
  let loading = false;

  const refresh = async () => {
    wanted = true;
    if (loading) return;
    loading = true;
    while (wanted) {
      wanted = false;
      const answer = await fetch(location.pathname, { headers: headers() });
      if (!answer.ok) break;
      // Parsed apart from this page: nothing in it runs. It is what the server would show on a reload.
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("run");
      if (fresh) put(fresh);
    }
    loading = false;
  };

  const put = (fresh) => {
    const open = new Set([...run.querySelectorAll("details[open]")].map((one) => one.dataset.key));
    const closed = new Set([...run.querySelectorAll("details:not([open])")].map((one) => one.dataset.key));
    for (const details of fresh.querySelectorAll("details")) {
      if (open.has(details.dataset.key)) details.open = true;
      else if (closed.has(details.dataset.key) && !details.open) details.open = false;
    }
    const focused = document.activeElement?.closest("details")?.dataset.key;
    const actions = run.querySelector("#actions");
    fresh.querySelector("#actions").replaceWith(actions);
    run.replaceChildren(...fresh.childNodes);
    for (const name of ["version", "live"]) {
      if (name in fresh.dataset) run.dataset[name] = fresh.dataset[name];
      else delete run.dataset[name];
    }
    if (focused) [...run.querySelectorAll("details")].find((one) => one.dataset.key === focused)?.querySelector("summary").focus();
    run.dispatchEvent(new Event("refreshed"));
  };

  follow("/api/runs/" + encodeURIComponent(run.dataset.run) + "/logs?format=changes", {
    run: (data) => (String(data.version) === run.dataset.version ? null : refresh()),
    end: refresh,
  });
};
