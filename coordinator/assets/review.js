// Jobs that wait for an approval: who is asked, and signed in, has the buttons.
import { make } from "./dom.js";
import { button, key, post } from "./sign.js";

export const reviews = (run) => {
  const arrange = () => {
    for (const waiting of run.querySelectorAll("[data-approvers]")) {
      if (!waiting.dataset.approvers.split(" ").includes(key())) continue;
      const told = make("span", { role: "status" });
      const comment = make("input", { name: "comment", "aria-label": "Comment", placeholder: "Comment", maxlength: "1000" });
      const say = (verdict) => async () => {
        await post("/api/runs/" + run.dataset.run + "/approve", { job: waiting.dataset.job, verdict, comment: comment.value });
        told.textContent = "It is " + verdict + ".";
      };
      waiting.append(" ", comment, " ", button("Approve", say("approved"), told), " ", button("Reject", say("rejected"), told), " ", told);
    }
  };
  arrange();
  run.addEventListener("refreshed", arrange);
};
