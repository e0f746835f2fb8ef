// Which lines of a log are folded away, and where the others are then. A step is folded by its first line, a group by the
// line that begins it.

export const folds = () => {
  let steps = [];
  let total = 0;
  let heads = new Map();
  const closed = new Set();
  const touched = new Set(); // steps that somebody folded or unfolded
  const groups = new Map(); // folded groups: the line that begins one, and the last one
  const ends = new Set(); // lines that end groups: they say nothing
  let ranges = []; // hidden lines as [first, last], in order

  const bodyEnd = (at) => (steps[at + 1] ? steps[at + 1].first - 1 : total);
  const arrange = () => {
    const hidden = [...groups].map(([first, last]) => [first + 1, last]);
    for (const line of ends) hidden.push([line, line]);
    steps.forEach((step, at) => {
      // What the last line of a step says stands in its head.
      if (step.last) hidden.push([step.last, step.last]);
      if (closed.has(step.first)) hidden.push([step.first + 1, bodyEnd(at)]);
    });
    ranges = [];
    for (const [first, last] of hidden.filter(([first, last]) => last >= first).sort((a, b) => a[0] - b[0])) {
      const before = ranges[ranges.length - 1];
      if (before && first <= before[1] + 1) before[1] = Math.max(before[1], last);
      else ranges.push([first, last]);
    }
  };
  const stepOf = (line) => steps.findLast((step) => step.first <= line);

  return {
    // Steps as the server knows them; `fold` says of each new or newly ended one whether it is folded.
    set(fresh, lines, fold) {
      const known = new Map(steps.map((step) => [step.first, step]));
      steps = fresh;
      total = lines;
      heads = new Map(steps.map((step) => [step.first, step]));
      for (const step of steps) {
        const changed = !known.has(step.first) || known.get(step.first).last !== step.last;
        if (!changed || touched.has(step.first)) continue;
        if (fold(step)) closed.add(step.first); else closed.delete(step.first);
      }
      arrange();
    },
    grow(lines) { if (lines !== total) { total = lines; arrange(); } },
    // Lines that are there now: those that only end a group are not shown.
    read(lines, isEnd) {
      const before = ends.size;
      for (const line of lines) if (isEnd(line)) ends.add(line.number);
      if (ends.size > before) arrange();
    },
    head: (line) => heads.get(line),
    steps: () => steps,
    isClosed: (line) => closed.has(line) || groups.has(line),
    toggle(first) {
      touched.add(first);
      if (!closed.delete(first)) closed.add(first);
      arrange();
    },
    group(first, last) {
      if (!groups.delete(first) && last > first) groups.set(first, last);
      arrange();
    },
    all(close) {
      for (const step of steps) {
        touched.add(step.first);
        if (close) closed.add(step.first); else closed.delete(step.first);
      }
      if (!close) groups.clear();
      arrange();
    },
    // Makes a line visible.
    reveal(line) {
      const step = stepOf(line);
      if (step && closed.delete(step.first)) touched.add(step.first);
      for (const [first, last] of [...groups]) if (first < line && line <= last) groups.delete(first);
      arrange();
    },
    hidden: () => ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0),
    // The line at a place among those that are shown, and back.
    lineAt(place) {
      let line = place;
      for (const [first, last] of ranges) {
        if (first > line) break;
        line += last - first + 1;
      }
      return line;
    },
    placeOf(line) {
      let place = line;
      for (const [first, last] of ranges) {
        if (last < line) place -= last - first + 1;
        else if (first <= line) return first - (line - place) - 1;
        else break;
      }
      return place;
    },
  };
};
