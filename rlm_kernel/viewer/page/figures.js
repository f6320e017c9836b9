// Formats numbers, and turns foreign values into text.

const whole = new Intl.NumberFormat("en");

/** Any value of a log as text: a log may hold any type in any field. */
export function textOf(value) {
  if (typeof value === "string") return value;
  if (value === null || value === undefined) return "";
  if (Array.isArray(value) && value.every((part) => typeof part === "string")) return value.join("");
  return JSON.stringify(value, null, 1);
}

const MOST = 1e15; // a larger number is not a real figure, and sums could overflow

export function number(value) {
  return Number.isFinite(value) && Math.abs(value) < MOST ? value : 0;
}

export function count(value, thing, things = `${thing}s`) {
  return `${whole.format(value)} ${value === 1 ? thing : things}`;
}

export function grouped(value) {
  return whole.format(value);
}

/** Tokens, short: `950`, `12.3k`, `1.2M`. */
export function short(value) {
  if (value < 1000) return String(Math.round(value));
  if (value < 999_500) return `${(value / 1000).toFixed(value < 9_950 ? 1 : 0)}k`;
  return `${(value / 1e6).toFixed(1)}M`;
}

export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 0.0095) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 0.95) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  const [minutes, rest] = [Math.floor(Math.round(value) / 60), Math.round(value) % 60];
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return minutes ? `${minutes} min ${String(rest).padStart(2, "0")} s` : `${rest} s`;
}

/** US dollars. An unknown cost is never shown as 0. */
export function dollars(value) {
  if (value === null || value === undefined) return "cost unknown";
  if (value === 0) return "$0";
  if (value < 0.001) return `$${value.toPrecision(2)}`;
  return `$${value.toFixed(value < 1 ? 4 : 2)}`;
}

export function bytes(value) {
  if (value < 1000) return count(value, "byte");
  if (value < 1e6) return `${(value / 1e3).toFixed(1)} kB`;
  return `${(value / 1e6).toFixed(1)} MB`;
}

/** When a run began; a short form for recent days. */
export function day(milliseconds, now = Date.now()) {
  const then = new Date(milliseconds);
  const time = then.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (then.toDateString() === new Date(now).toDateString()) return `today ${time}`;
  return `${then.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" })} ${time}`;
}

/** The first words, in one line. */
export function firstWords(text, most = 160) {
  const words = text
    .slice(0, most * 4)
    .replace(/\s+/g, " ")
    .trim();
  return words.length > most || text.length > most * 4 ? `${words.slice(0, most - 1)}…` : words;
}
