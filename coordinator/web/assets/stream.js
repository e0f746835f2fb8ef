// Server-sent events and JSON, with the reader's token where somebody is signed in (EventSource can carry none).

const token = () => {
  const held = JSON.parse(sessionStorage.getItem("longshore.reader") || "null");
  return held && held.until > Date.now() / 1000 ? held.header : null;
};

export const headers = (more = {}) => {
  const header = token();
  return header ? { ...more, authorization: header } : more;
};

export const json = async (url) => {
  const answer = await fetch(url, { headers: headers({ accept: "application/json" }) });
  if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.error || "the server answered " + answer.status);
  return answer.json();
};

// The page was left; browsers keep such pages, to come back to.
let left = false;
addEventListener("pagehide", () => { left = true; });
addEventListener("pageshow", () => { left = false; });

// A page that is kept up to date says so when it is not: the server sends something each second.
const SILENT = 2500;
let silent = 0;
const tell = (is) => {
  const place = document.getElementById("stale");
  if (!place) return;
  const text = is ? "Not up to date: the coordinator does not answer. Trying again …" : "";
  if (place.textContent !== text) place.textContent = text;
};
// Calls `heard` of what it gives whenever something came; after a while without, the page says that it is stale.
const watch = (wanted) => {
  let last = Date.now();
  let is = false;
  const change = (now) => {
    if (is === now) return;
    is = now;
    silent += now ? 1 : -1;
    tell(silent > 0);
  };
  const timer = setInterval(() => {
    if (!wanted()) last = Date.now();
    change(Date.now() - last > SILENT);
  }, 250);
  return {
    heard: () => { last = Date.now(); change(false); },
    end: () => { clearInterval(timer); change(false); },
  };
};

// Calls handlers[event](data) until the handler `end` was called; comes back after a broken connection where it was.
// A browser has few connections for one host: they are for pages in sight. `unseen` says that this one is needed always.
export const follow = async (url, handlers, { last = null, unseen = false } = {}) => {
  let ended = false;
  let pause = 500;
  let held = new AbortController();
  let wake = () => {};
  const wanted = () => !left && (unseen || document.visibilityState === "visible");
  const turn = () => (wanted() ? wake() : held.abort());
  const word = unseen ? { heard: () => {}, end: () => {} } : watch(wanted);
  for (const name of ["visibilitychange", "pagehide", "pageshow"]) addEventListener(name, turn);
  while (!ended) {
    while (!wanted()) await new Promise((done) => { wake = done; });
    held = new AbortController();
    try {
      const answer = await fetch(url, { headers: headers(last === null ? {} : { "last-event-id": last }), signal: held.signal });
      // Too many streams: there may be room in a moment.
      word.heard();
      if ([429, 503].includes(answer.status) && !unseen) throw new Error("busy");
      if (!answer.ok) {
        word.end();
        handlers.refused?.((await answer.json().catch(() => null))?.error || "the server answered " + answer.status);
        return;
      }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        word.heard();
        pause = 500;
        text += value;
        const events = text.split("\n\n");
        text = events.pop();
        for (const event of events) {
          const fields = { event: "message", data: "" };
          for (const line of event.split("\n")) {
            const colon = line.indexOf(":");
            if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).replace(/^ /, "");
          }
          if (fields.id !== undefined) last = fields.id;
          if (fields.event === "end" || fields.event === "failed") ended = true;
          if (fields.data && handlers[fields.event]) handlers[fields.event](JSON.parse(fields.data));
        }
      }
    } catch {
      // The connection broke: it is tried again below.
    }
    if (ended || held.signal.aborted) continue;
    await new Promise((done) => { wake = done; setTimeout(done, pause); });
    pause = Math.min(pause * 2, 15000);
  }
  word.end();
};
