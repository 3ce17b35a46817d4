// The source of the objects: the API server with its watches, or manifests.
const WATCHES = { listing: "warn", synced: "good", failing: "bad", unavailable: "unknown" };

function showSource({ overview, waited }) {
  const { apiServer, manifests, watches, node, takeoverWaitsFor } = overview.status;
  const facts = element("dl", { class: "facts" });
  const add = (title, ...parts) => facts.append(element("dt", {}, title), element("dd", {}, ...parts));
  const ago = (seconds) => (seconds == null ? "–" : duration(seconds + waited));
  if (apiServer) {
    const others = apiServer.servers.filter((url) => url !== apiServer.url).length;
    add("API server", apiServer.url ?? "not connected yet",
      element("span", { class: "muted" }, apiServer.url ? ` for ${ago(apiServer.followedSeconds)}` : "",
        others > 0 ? `, or ${plural(others, "other")}` : ""));
  }
  if (manifests) add("Manifests", manifests.directory);
  // Manifests need no Node.
  if (apiServer && node?.exists === false) {
    add("Node", node.name, " ", element("span", { class: "badge", "data-level": "bad" }, "no such Node"));
  }
  if (takeoverWaitsFor) add("Takeover", `waits: ${takeoverWaitsFor}`);
  for (const [file, reason] of Object.entries(manifests?.problems ?? {})) {
    add("Not read", file, element("p", { class: "error" }, reason));
  }
  const rows = watches.map((watch) => [
    watch.kind,
    element("span", {}, element("span", { class: "badge", "data-level": WATCHES[watch.state] ?? "unknown" }, watch.state),
      watch.error ? element("p", { class: "error" }, watch.error) : ""),
    ago(watch.seconds), ago(watch.lastEventSeconds), count(watch.objects),
  ]);
  const list = rows.length > 0 ? [table("Watches", ["Kind", "Watch", "Since", "Last event", "#Objects"], rows)] : [];
  byId("source-list").replaceChildren(facts, ...list);
}
