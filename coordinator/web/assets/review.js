// Jobs that wait for an approval: who is asked, and signed in, has the buttons.
import { make } from "./dom.js";
import { key, post, signing } from "./sign.js";

export const reviews = (run) => {
  // By job: what somebody writes here outlives the page's parts that are put anew while other jobs go on.
  const known = new Map();
  const controls = (job) => {
    const told = make("span", { role: "status" });
    const comment = make("input", { name: "comment", "aria-label": "Comment", placeholder: "Comment", maxlength: "1000" });
    const say = (verdict) => async () => {
      await post("/api/runs/" + run.dataset.run + "/approve", { job, verdict, comment: comment.value });
      told.textContent = verdict === "approved" ? "Approved." : "Rejected.";
    };
    const approve = signing("Approve", say("approved"), told);
    approve.classList.add("primary");
    return [comment, approve, signing("Reject", say("rejected"), told), told];
  };
  const arrange = () => {
    for (const waiting of run.querySelectorAll("[data-approvers]")) {
      if (!waiting.dataset.approvers.split(" ").includes(key())) continue;
      const { job } = waiting.dataset;
      if (!known.has(job)) known.set(job, controls(job));
      waiting.append(...known.get(job));
    }
  };
  arrange();
  run.addEventListener("refreshed", arrange);
};
