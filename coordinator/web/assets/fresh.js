// The page as the server would show it now, apart from this one: nothing in it runs.
import { headers } from "./stream.js";

export const freshPage = async () => {
  const answer = await fetch(location.pathname + location.search, { headers: headers() });
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
};

// What somebody unfolded stays so in what takes its place.
export const keepOpen = (old, fresh) => {
  const open = new Set([...old.querySelectorAll("details[open]")].map((one) => one.dataset.key));
  for (const details of fresh.querySelectorAll("details")) if (open.has(details.dataset.key)) details.open = true;
};

// The tab tells how it stands.
export const showTab = (page) => {
  document.title = page.title;
  const tab = (of) => of.querySelector("link[rel=icon]");
  if (tab(document).href !== tab(page).href) tab(document).href = tab(page).href;
};

// Does something again for as long as it is asked for meanwhile, once at a time.
export const coalesced = (act) => {
  let wanted = false;
  let running = null;
  const run = async () => {
    while (wanted) {
      wanted = false;
      await act();
    }
  };
  return () => {
    wanted = true;
    running ??= run().finally(() => { running = null; });
    return running;
  };
};
