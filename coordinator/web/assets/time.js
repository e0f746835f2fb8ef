// Times as people read them, kept up to date. The same words as in time.rs.

const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

export const moment = (millis) => new Date(millis).toISOString().slice(0, 19).replace("T", " ");

export const ago = (at, now = Date.now()) => {
  const since = now - at;
  const some = (unit, name) => Math.floor(since / unit) + " " + name + " ago";
  if (since < 5 * SECOND) return "just now";
  if (since < MINUTE) return some(SECOND, "s");
  if (since < HOUR) return some(MINUTE, "min");
  if (since < DAY) return some(HOUR, "h");
  if (since < 2 * DAY) return "yesterday";
  return since < 30 * DAY ? some(DAY, "days") : moment(at).slice(0, 10);
};

export const span = (millis) => {
  const whole = (unit) => Math.floor(millis / unit);
  if (millis < SECOND) return Math.max(0, Math.floor(millis)) + " ms";
  if (millis < MINUTE) return whole(SECOND) + "." + (whole(100) % 10) + " s";
  if (millis < HOUR) return whole(MINUTE) + " min " + (whole(SECOND) % 60) + " s";
  return whole(HOUR) + " h " + (whole(MINUTE) % 60) + " min";
};

// How long something has taken that goes on; whole seconds, or the digits would only flicker.
const going = (since) => span(Math.max(0, Math.floor((Date.now() - since) / SECOND) * SECOND)).replace(/\.0 s$/, " s");

const set = (element, text) => { if (element.textContent !== text) element.textContent = text; };

const tick = () => {
  for (const one of document.querySelectorAll("time[data-ago]")) set(one, ago(Date.parse(one.dateTime)));
  for (const one of document.querySelectorAll("[data-since]")) set(one, going(Number(one.dataset.since)));
};

export const keepTime = () => {
  tick();
  setInterval(() => { if (document.visibilityState === "visible") tick(); }, SECOND);
};
