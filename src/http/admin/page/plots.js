// Small plots.
function points(values) {
  const highest = Math.max(...values, 1e-9);
  const step = 100 / (SAMPLES - 1);
  const start = 100 - (values.length - 1) * step;
  return values.map((value, at) =>
    `${(start + at * step).toFixed(2)},${(29 - (value / highest) * 27).toFixed(2)}`);
}

// Draws rates as a line; the newest is at the right, at the left what was two minutes ago.
function spark(big = false) {
  const line = drawing("polyline");
  const area = drawing("polygon");
  const plot = drawing("svg", {
    class: big ? "spark big" : "spark", viewBox: "0 0 100 30", preserveAspectRatio: "none",
    role: big ? "img" : undefined, "aria-hidden": big ? undefined : "true",
  }, drawing("line", { x1: 0, x2: 100, y1: 29.5, y2: 29.5 }), area, line);
  plot.draw = (values) => {
    const all = values.length === 1 ? [values[0], values[0]] : values;
    const drawn = all.every((value) => value === 0) ? "" : points(all).join(" ");
    if (line.getAttribute("points") === drawn) return;
    line.setAttribute("points", drawn);
    const start = drawn.split(",")[0];
    area.setAttribute("points", drawn && `${start},30 ${drawn} 100,30`);
    if (big) {
      const highest = Math.max(...values, 0);
      plot.setAttribute("aria-label", `New connections per second, at most ${perSecond(highest)}`);
    }
  };
  return plot;
}

// Draws the time of each sync as a bar, on a logarithmic scale.
function bars(syncs) {
  const height = (ms) => Math.max(2, Math.min(46, 8 + 8.5 * Math.log10(Math.max(ms, 0.1) * 5)));
  const width = 600 / 60;
  const start = 600 - syncs.length * width;
  const bar = (sync, at) => {
    const tall = height(sync.elapsedMs);
    const kind = sync.error ? "failed" : sync.full ? "full" : undefined;
    const said = `${milliseconds(sync.elapsedMs)}, ${plural(sync.operations, "operation")}`;
    return drawing("rect", {
      class: kind, x: start + at * width + 1, y: 52 - tall, width: width - 2, height: tall, rx: 1.5,
    }, drawing("title", {}, sync.error ? `failed: ${sync.error}` : said));
  };
  const slowest = Math.max(0, ...syncs.map((sync) => sync.elapsedMs));
  return drawing("svg", {
    class: "bars", viewBox: "0 0 600 54", preserveAspectRatio: "none", role: "img",
    "aria-label": `Times of the last ${syncs.length} syncs, at most ${milliseconds(slowest)}`,
  }, drawing("line", { x1: 0, x2: 600, y1: 53, y2: 53 }), ...syncs.map(bar));
}
