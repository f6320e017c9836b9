// Puts two lists side by side: what is alike in one row, and what lies between in the order in which it comes.

const MOST = 4_000_000; // pairs that are looked at: more take seconds

/**
 * The rows `[left, right]` of two lists; one of them is null where the other has more. `likeness(left, right)` is 0 for
 * what has nothing in common and 1 for what is equal.
 */
export function aligned(left, right, likeness) {
  const [from, shared] = [startOf(left, right, likeness), []];
  const ends = endOf(left, right, likeness, from);
  const [a, b] = [left.slice(from, left.length - ends), right.slice(from, right.length - ends)];
  if (a.length * b.length <= MOST) shared.push(...anchors(a, b, likeness));
  const rows = left.slice(0, from).map((one, place) => [one, right[place]]);
  let [i, j] = [0, 0];
  for (const [to, beside] of [...shared, [a.length, b.length]]) {
    for (; i < to || j < beside; i += 1, j += 1) rows.push([i < to ? a[i] : null, j < beside ? b[j] : null]);
    [i, j] = [to, beside];
    if (to < a.length) rows.push([a[i], b[j]]);
    [i, j] = [to + 1, beside + 1];
  }
  return [...rows, ...left.slice(left.length - ends).map((one, place) => [one, right[right.length - ends + place]])];
}

function startOf(left, right, likeness) {
  let place = 0;
  while (place < left.length && place < right.length && likeness(left[place], right[place]) === 1) place += 1;
  return place;
}

function endOf(left, right, likeness, from) {
  let count = 0;
  const most = Math.min(left.length, right.length) - from;
  while (count < most && likeness(left[left.length - 1 - count], right[right.length - 1 - count]) === 1) count += 1;
  return count;
}

/** The places of the pairs whose likeness is the largest in sum, in an order that both lists keep. */
function anchors(a, b, likeness) {
  const width = b.length + 1;
  const [best, alike] = [new Float32Array((a.length + 1) * width), new Float32Array(a.length * b.length)];
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const here = (alike[i * b.length + j] = likeness(a[i], b[j]));
      const both = here ? here + best[(i + 1) * width + j + 1] : 0;
      best[i * width + j] = Math.max(both, best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const found = [];
  for (let [i, j] = [0, 0]; i < a.length && j < b.length; ) {
    const here = alike[i * b.length + j];
    const value = best[i * width + j];
    if (here && value === Math.fround(here + best[(i + 1) * width + j + 1])) found.push([i++, j++]);
    else if (value === best[(i + 1) * width + j]) i += 1;
    else j += 1;
  }
  return found;
}

/** Two lists of parts in stretches: `{ same, left, right }`. `keyOf(part)`: a text that equal parts share. */
export function stretches(left, right, keyOf = (part) => part) {
  const keyed = (parts) => parts.map((part) => ({ part, key: keyOf(part) }));
  const rows = aligned(keyed(left), keyed(right), (one, other) => Number(one.key === other.key));
  const found = [];
  for (const [one, other] of rows) {
    const same = one?.key === other?.key;
    if (found.at(-1)?.same !== same) found.push({ same, left: [], right: [] });
    if (one !== null) found.at(-1).left.push(one.part);
    if (other !== null) found.at(-1).right.push(other.part);
  }
  return found;
}

/** How much two texts have in common, by their lines: the share of lines that both have, 0 below a third. */
export function likenessOf(left, right) {
  if (left === right) return 1;
  const [one, other] = [linesOf(left), linesOf(right)];
  const both = [...one].filter((line) => other.has(line)).length;
  const share = (2 * both) / (one.size + other.size || 1);
  return share < 1 / 3 ? 0 : Math.min(share, 0.99);
}

function linesOf(text) {
  return new Set(
    text
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean),
  );
}
