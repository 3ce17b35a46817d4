// The page refreshes itself. It shows what it has while the daemon is busy or does not answer.
const TIMEOUT = 4000;

const page = {
  overview: null, problems: {}, ports: [], loaded: false, revision: null,
  // When the daemon last answered, and when it was last known what is served.
  heard: null, confirmed: null, busy: false, failure: null, isPaused: false,
};

async function ask(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT), cache: "no-store" });
  if (!response.ok) throw new Error((await response.text()).trim());
  return response.json();
}

async function askOverview() {
  page.overview = await ask("debug/overview");
}

async function askServices() {
  const known = page.revision === null ? "" : `?revision=${page.revision}`;
  const answer = await ask(`debug/services${known}`);
  page.busy = answer.busy;
  page.problems = answer.problems;
  if (answer.ageSeconds !== null) page.confirmed = Date.now() - answer.ageSeconds * 1000;
  if (!answer.ports) return;
  page.revision = answer.revision;
  page.loaded = true;
  services.set(answer.ports);
  page.ports = services.ports;
}

async function askConnections() {
  if (page.overview?.countsConnections) rates.add(await ask("debug/connections"));
}

function banner() {
  const since = (time) => duration((Date.now() - time) / 1000);
  if (page.failure) {
    const last = page.heard ? `, the last answer was ${since(page.heard)} ago` : "";
    return `kube-dnat does not answer${last}. What is programmed in the kernel stays in effect.`;
  }
  if (page.busy) {
    const age = page.confirmed ? `Services are shown as of ${since(page.confirmed)} ago.` : "Services follow.";
    return `kube-dnat is busy with a sync. ${age}`;
  }
  return "";
}

function showAges() {
  const text = banner();
  byId("banner").hidden = text === "";
  setText(byId("banner"), text);
  const ago = page.heard ? `updated ${duration((Date.now() - page.heard) / 1000)} ago` : "";
  setText(byId("age"), page.isPaused ? `paused, ${ago}` : ago);
  if (page.overview) {
    page.waited = (Date.now() - page.heard) / 1000;
    showHeader(page.overview, !page.failure);
    showTiles(page);
  }
}

function showAll() {
  if (page.overview) {
    showSyncs(page);
    showSource(page);
  }
  showProblems(page);
  services.update();
  details.draw();
  const empty = byId("empty");
  empty.hidden = services.shown.length > 0;
  setText(empty, !page.loaded ? "Waiting for the Services." : page.ports.length === 0 ? "There are no Services." : "No Service matches.");
  showAges();
}

// Asks again after a pause, which is longer if the answers take long.
async function follow(interval, ...asks) {
  for (;;) {
    const started = Date.now();
    if (!page.isPaused && !document.hidden) {
      try {
        for (const one of asks) await one();
        page.heard = Date.now();
        page.failure = null;
      } catch (error) {
        page.failure = error;
      }
      showAll();
    }
    const pause = page.failure ? interval : Math.max(interval, 5 * (Date.now() - started));
    await new Promise((resolve) => { setTimeout(resolve, Math.min(pause, 30000)); });
  }
}

followInput();
followDetails();
byId("pause").addEventListener("click", (event) => {
  page.isPaused = !page.isPaused;
  event.target.setAttribute("aria-pressed", page.isPaused);
  setText(event.target, page.isPaused ? "Resume" : "Pause");
  showAges();
});
setInterval(showAges, 1000);
follow(3000, askOverview, askServices, askConnections);
