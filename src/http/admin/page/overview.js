// The state of the daemon: its health, numbers and latest syncs.
const tiles = new Map();

function tile(key, title, { value, level, note, values }) {
  let of = tiles.get(key);
  if (!of) {
    of = {
      box: element("div", { class: "tile" }),
      value: element("dd", { class: "value" }),
      note: element("dd", { class: "note" }),
      plot: values ? spark() : null,
    };
    of.box.append(element("dt", {}, title), of.value);
    if (of.plot) of.box.append(element("dd", {}, of.plot));
    of.box.append(of.note);
    byId("tiles").append(of.box);
    tiles.set(key, of);
  }
  setText(of.value, value);
  setText(of.note, note ?? "");
  if (of.plot) of.plot.draw(values);
  if (level) of.box.dataset.level = level;
  else delete of.box.dataset.level;
}

const HEALTH = {
  healthy: ["good", "Healthy"],
  drained: ["warn", "Healthy, drained"],
  ineligible: ["warn", "Healthy, not for load balancers"],
  unhealthy: ["bad", "Not healthy"],
  starting: ["warn", "Nothing programmed yet"],
};

function showHeader(overview, answers) {
  const [level, text] = answers ? HEALTH[overview.health] : ["bad", "Not answering"];
  byId("health").dataset.level = level;
  setText(byId("health"), text);
  const { process } = overview;
  const usage = process && `${bytes(process.residentBytes)} of memory, running for ${duration(process.runningSeconds)}`;
  setText(byId("node"), [overview.node, overview.status.version, usage].filter(Boolean).join(" · "));
  const title = level === "good" ? overview.node : `${text}: ${overview.node}`;
  document.title = `${title} – kube-dnat`;
}

function showTiles({ overview, ports, loaded, waited }) {
  const { status, syncs } = overview;
  const services = new Set(ports.map((port) => port.service)).size;
  const refused = ports.filter((port) => port.state === "refused").length;
  const counts = overview.countsConnections;
  tile("rate", "New connections/s", {
    value: counts ? perSecond(rates.total.at(-1) ?? null) : "off",
    note: counts ? "on this node" : "connection metrics are disabled",
    values: rates.total,
  });
  tile("services", "Services", {
    value: loaded ? count(services) : "–",
    note: loaded ? `${plural(ports.length, "port")}, ${overview.families.join(" and ")}` : "",
  });
  tile("refused", "Without endpoints", {
    value: loaded ? count(refused) : "–", level: refused > 0 ? "warn" : undefined,
    note: refused > 0 ? "connections are rejected" : "",
  });
  const last = syncs.at(-1);
  tile("sync", "Last sync", {
    value: status.lastSyncSeconds == null ? "none" : `${duration(status.lastSyncSeconds + waited)} ago`,
    note: last && !last.error ? `${milliseconds(last.elapsedMs)}, ${plural(last.operations, "operation")}` : "",
  });
  const waits = [
    status.unreadServices > 0 && `${plural(status.unreadServices, "Service")} not read back yet`,
    status.conntrackCleanupPending && "conntrack cleanup pending",
  ].filter(Boolean);
  tile("pending", "Pending changes", {
    value: count(status.pendingChanges), note: waits.join(", ") || "all is in the kernel",
    level: overview.health === "unhealthy" ? "bad" : undefined,
  });
  if (waits.length === 0 && status.pendingChanges > 0) setText(tiles.get("pending").note, "wait for a sync");
  tile("failures", "Failed syncs", {
    value: count(status.failedSyncs), level: last?.error ? "bad" : undefined,
    note: `${plural(status.driftRepairs, "repair")} of the tables`,
  });
}

function showSyncs({ overview, waited }) {
  const { syncs, now } = overview;
  byId("syncs-plot").replaceChildren(syncs.length > 0 ? bars(syncs) : "");
  const rows = syncs.slice(-6).reverse().map((sync) => [
    `${duration(now - sync.at + waited)} ago`,
    sync.error ? element("span", { class: "error" }, sync.error) : sync.full ? "full" : "partial",
    count(sync.operations), milliseconds(sync.elapsedMs), milliseconds(sync.kernelMs),
    milliseconds(sync.programmingMs),
  ]);
  const columns = ["When", "Kind", "#Ops", "#Took", "#In kernel", "#Delay"];
  byId("syncs-list").replaceChildren(rows.length > 0 ? table("Recent syncs", columns, rows) : "No sync yet.");
}
