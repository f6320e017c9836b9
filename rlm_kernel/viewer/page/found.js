// Marks what the search found.

/** Mark the first place without touching the text, and say which element to scroll to. */
export function markIn(pre, pattern) {
  const match = pattern.exec(pre.textContent);
  if (!match) return pre; // it holds characters that are shown by their names
  const { index, 0: found } = match;
  const range = document.createRange();
  const texts = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT);
  for (let [offset, node] = [0, texts.nextNode()]; node; offset += node.length, node = texts.nextNode()) {
    if (index >= offset && index < offset + node.length) range.setStart(node, index - offset);
    if (index + found.length <= offset + node.length) {
      range.setEnd(node, index + found.length - offset);
      break;
    }
  }
  globalThis.CSS?.highlights?.set("rlm-found", new Highlight(range));
  const box = range.getBoundingClientRect();
  return { scrollIntoView: () => scrollTo(pre, box) };
}

function scrollTo(pre, box) {
  const scroller = pre.closest(".scroller");
  const view = scroller.getBoundingClientRect();
  scroller.scrollBy({ top: box.top - view.top - view.height / 2 });
}
