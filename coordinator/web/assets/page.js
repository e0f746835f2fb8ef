// Loaded by every page: what a page has on it decides which part of it comes to life.
import { copyButtons } from "./copy.js";
import { liveList } from "./list.js";
import { liveRun } from "./run.js";
import { liveLog } from "./log.js";
import { edit } from "./edit.js";
import { suggest } from "./search.js";
import { start } from "./sign.js";
import { keepTime } from "./time.js";

await start();

const found = (id, come) => {
  const element = document.getElementById(id);
  if (element) come(element);
};

// A job that is pointed at, by the graph of jobs or by a link, is opened.
const point = () => {
  const job = document.getElementById(location.hash.slice(1));
  if (job?.matches("details")) job.open = true;
};
addEventListener("hashchange", point);
point();

keepTime();
copyButtons(document);
found("search", suggest);
found("runs", liveList);
found("run", liveRun);
found("log", liveLog);
found("edit", edit);
found("settings", async (place) => (await import("./settings.js")).settings(place));
