// Goes to what an address names: a log, which may have to be read first, and a place in it.

import { partOf, pathTo } from "./addresses.js";
import { ServedLog } from "./sources.js";

/** Show what an address names; `spot`: where it was scrolled to. */
export function visit(viewer, place, spot) {
  const entry = entryAt(viewer, place);
  if (entry) Object.assign(entry, { wanted: { ...place, spot }, lost: false });
  viewer.show(entry, false);
  if (entry) arrive(viewer);
  else if (spot) viewer.body.firstChild.scrollTop = spot.by;
}

function entryAt(viewer, place) {
  const { beside, name, upload } = place;
  if (beside) {
    const both = [place, beside].map((side) => sideAt(viewer, side));
    return both.every((side) => side.source) ? viewer.pair(...both) : (viewer.entries[0] ?? null);
  }
  if (!viewer.library) return viewer.entries[0];
  if (upload) return viewer.entries.find((entry) => entry.upload === upload) ?? null;
  return name ? viewer.opened(new ServedLog(name)) : null;
}

/** One side of a comparison, as `Picks` gives it. */
function sideAt(viewer, { name, upload, run, children }) {
  const known = viewer.entries.flatMap((entry) => entry.both ?? [entry]);
  const same = (entry) => (upload ? entry.upload === upload : !entry.upload && entry.log.name === name);
  const source = known.find(same)?.source ?? (viewer.library && !upload ? new ServedLog(name) : null);
  return { source, upload, place: run - 1, steps: children };
}

/** Go to the place that is wanted as soon as the log holds it. */
export function arrive(viewer) {
  const { current: entry, view } = viewer;
  if (!entry?.wanted || !view) return;
  const { wanted } = entry;
  const { path, part } = entry.both ? { path: [], part: { turn: (wanted.turn ?? 0) - 1 } } : found(entry, wanted);
  if (!part && (!entry.loaded || entry.live)) return;
  Object.assign(entry, { wanted: null, lost: !part });
  if (!entry.both && path) Object.assign(entry, { path, place: wanted.run - 1 });
  if (view.run !== entry.run || entry.lost) viewer.draw();
  if (wanted.spot) viewer.view.spot = wanted.spot;
  else if (part) viewer.view.arrive(part);
}

function found(entry, wanted) {
  const run = entry.log.runs[wanted.run - 1];
  const path = run && pathTo(run, wanted.children);
  return { path, part: path && partOf(path.at(-1) ?? run, wanted) };
}
