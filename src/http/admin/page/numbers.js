// Numbers and times as text.
const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const count = (number) => (number < 1e6 ? whole.format(number) : compact.format(number));

const plural = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;

function perSecond(rate) {
  if (rate === null) return "–";
  if (rate > 0 && rate < 10) return rate.toFixed(1);
  return count(Math.round(rate));
}

function milliseconds(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 10) return `${ms.toFixed(2)} ms`;
  return ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

// A duration by its two largest units, as kubectl has it.
function duration(seconds) {
  let rest = Math.max(0, Math.floor(seconds));
  const parts = [];
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]) {
    const number = Math.floor(rest / length);
    if (number > 0 || (unit === "s" && parts.length === 0)) parts.push(`${number}${unit}`);
    else if (parts.length > 0) break;
    rest -= number * length;
    if (parts.length === 2) break;
  }
  return parts.join("");
}

const bytes = (number) =>
  number < 1e9 ? `${(number / 1e6).toFixed(0)} MB` : `${(number / 1e9).toFixed(1)} GB`;
