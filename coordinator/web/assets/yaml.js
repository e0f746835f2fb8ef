// Colours for a workflow text: pieces with a class, line by line. What it takes for what is only a matter of looks.
import { straight } from "./ansi.js";

const PIECES = [
  ["y-note", /(^|\s)#.*$/y],
  ["y-key", /(?:[\w$.-]+|"[^"]*"|'[^']*')(?=\s*:(?:\s|$))/y],
  ["y-code", /\$\{\{.*?\}\}/y],
  ["y-text", /"(?:\\.|[^"\\])*"|'(?:''|[^'])*'/y],
  ["y-mark", /[-?:](?=\s|$)|[[\]{},|>&*!]/y],
  ["y-value", /\b(?:true|false|null|~|-?\d+(?:\.\d+)?)\b(?=\s|,|\]|\}|$)/y],
];

const pieces = (line) => {
  const found = [];
  let plain = "";
  let at = 0;
  while (at < line.length) {
    let hit = null;
    for (const [name, pattern] of PIECES) {
      pattern.lastIndex = at;
      const match = pattern.exec(line);
      // A word is not cut in two: what follows a letter is no piece of its own.
      if (match && match[0] && !(/\w/.test(line[at - 1] || "") && /^[\w"']/.test(match[0]))) {
        hit = [name, match[0]];
        break;
      }
    }
    if (hit) {
      if (plain) found.push(["", plain]);
      plain = "";
      found.push(hit);
      at += hit[1].length;
    } else {
      plain += line[at];
      at += 1;
    }
  }
  if (plain) found.push(["", plain]);
  return found;
};

// The text as elements, one line after the other; `marked` are numbers of lines with a finding.
export const coloured = (text, marked) => {
  const all = document.createDocumentFragment();
  text.split("\n").forEach((line, index) => {
    const row = document.createElement("span");
    if (marked.has(index + 1)) row.className = "y-bad";
    for (const [name, piece] of pieces(line)) {
      const element = document.createElement("span");
      if (name) element.className = name;
      element.textContent = straight(piece);
      row.append(element);
    }
    all.append(row, "\n");
  });
  return all;
};
