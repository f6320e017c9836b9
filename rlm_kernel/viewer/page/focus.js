// Keeps the focus where it was when a part of the page is drawn again.

/** Call `draw`, which draws what is inside of an element again; the element that is drawn, if it is another one. */
export function keepingFocus(part, draw) {
  const held = part.getRootNode().activeElement;
  const key = held && part.contains(held) ? keyOf(held) : null;
  const drawn = draw() ?? part;
  if (key) drawn.querySelector(key)?.focus({ preventScroll: true });
}

/** How to find an element again in what is drawn in its place. */
function keyOf(element) {
  const details = element.closest("details[data-key]");
  if (element.dataset.turn) return `[data-turn="${element.dataset.turn}"]`;
  if (element.matches(".pick input")) return `[aria-label="${CSS.escape(element.getAttribute("aria-label"))}"]`;
  if (element.dataset.go) return `[data-go="${element.dataset.go}"]`;
  return details && `[data-key="${details.dataset.key}"] > summary`;
}
