// Where the bytes of a log come from: our own server, a file that was dropped, the page itself, or the kernel of a
// notebook. Each gives the bytes from an offset on, in pieces, so that a growing log can be read on.

const PIECE = 1 << 20;
const PATIENCE = 10_000; // timeout of an answer of the kernel, in milliseconds
let requests = 0; // of words, by all logs of the page
const pause = () => new Promise((resolve) => setTimeout(resolve));

/** What texts are drawn as, from the server of the page. */
async function drawnByServer(texts) {
  const response = await fetch("words", { method: "POST", body: JSON.stringify(texts) });
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

/** A log of the folder that `rlm view` serves. */
export class ServedLog {
  constructor(name) {
    this.name = name;
    this.grows = true;
  }

  async *from(offset) {
    const response = await fetch(`logs/${encodeURIComponent(this.name.toWellFormed())}?from=${offset}`);
    if (!response.ok) throw new Error((await response.text()) || `The server answered ${response.status}.`);
    const first = response.headers.get("X-Log-First");
    if (offset > Number(response.headers.get("X-Log-Size")) || (offset && this.first && first && first !== this.first))
      throw new Error("it was cut or written anew. Reload the page to see it.");
    this.first ||= first;
    this.fresh = response.headers.get("X-Log-Fresh") === "yes";
    yield* chunks(response.body);
  }

  drawn(texts) {
    return drawnByServer(texts);
  }
}

/** A file that the user chose or dropped. It stays in the browser; the server draws its words and keeps nothing. */
export class ChosenFile {
  constructor(file) {
    Object.assign(this, { name: file.name, file, grows: false, fresh: false });
  }

  async *from(offset) {
    yield* chunks(this.file.slice(offset).stream());
  }

  drawn(texts) {
    return drawnByServer(texts);
  }
}

/** A log that is part of the page: an exported file. */
export class WrittenLog {
  /** `words`: what its texts are drawn as; those that are missing are shown as they are. */
  constructor(name, text, words, fresh) {
    Object.assign(this, { name, words, bytes: new TextEncoder().encode(text), grows: false, fresh });
  }

  async drawn(texts) {
    return texts.map((text) => (Object.hasOwn(this.words, text) ? this.words[text] : null));
  }

  async *from(offset) {
    for (let start = offset; start < this.bytes.length; start += PIECE) {
      yield this.bytes.subarray(start, start + PIECE);
      await pause();
    }
  }
}

/** A log that the kernel of a notebook reads: a message asks for the next piece, and one brings it. */
export class KernelLog {
  /** `place`: of the log among those of the widget. */
  constructor(name, model, place) {
    Object.assign(this, { name, model, place, grows: true, fresh: false });
  }

  async *from(offset) {
    for (let start = offset; ;) {
      const [content, bytes] = await this.ask(start);
      this.fresh = content.fresh;
      this.grows = content.grows;
      if (content.error) throw new Error(content.error);
      if (!bytes.length) return;
      start += bytes.length;
      yield bytes;
    }
  }

  async ask(offset) {
    const request = { from: offset, log: this.place };
    const [content, [view]] = await this.answer(request, ({ from, log }) => from === offset && log === this.place);
    return [content, view ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array()];
  }

  async drawn(texts) {
    const number = (requests += 1);
    const [content] = await this.answer({ words: texts, number }, (answer) => answer.number === number);
    return content.drawn;
  }

  /** The message of the kernel that answers a request. */
  answer(request, answers) {
    return new Promise((resolve, reject) => {
      const patience = setTimeout(() => {
        this.model.off("msg:custom", take);
        reject(new Error("the kernel does not answer. It is busy, or it is gone: then run the cell again."));
      }, PATIENCE);
      const take = (content, buffers) => {
        if (!answers(content)) return;
        clearTimeout(patience);
        this.model.off("msg:custom", take);
        resolve([content, buffers ?? []]);
      };
      this.model.on("msg:custom", take);
      this.model.send(request);
    });
  }
}

async function* chunks(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}
