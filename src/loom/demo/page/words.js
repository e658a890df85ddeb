/** A text that grows, in blocks: a browser lays out a whole block again for each word that is added to it. */

import { el } from "./dom.js";

const BLOCK = 4000; // characters, and to the end of the line
const LINE = 20_000; // characters; a longer line is broken

/** Where the block ends that goes on with `text` behind so many characters; 0: not within it. */
export function endOfBlock(text, before) {
  const line = text.indexOf("\n", Math.max(0, BLOCK - before)) + 1;
  const most = Math.max(1, LINE - before);
  if (line && line <= most) return line;
  if (text.length <= most) return 0;
  const end = text.lastIndexOf(" ", most - 1) + 1 || most;
  return text.codePointAt(end - 1) > 0xffff ? end + 1 : end;
}

export class Words {
  node = el("div", { className: "words" });
  #text = "";

  constructor() {
    this.#clear();
  }

  show(text) {
    if (text === this.#text) return;
    if (!text.startsWith(this.#text)) this.#clear();
    this.#append(text.slice(this.#text.length));
    this.#text = text;
  }

  #clear() {
    this.#text = "";
    this.node.replaceChildren(block());
  }

  #append(text) {
    for (let rest = text; rest; ) {
      const last = this.node.lastElementChild.firstChild;
      const end = endOfBlock(rest, last.length);
      last.appendData(end ? rest.slice(0, end) : rest);
      if (end) this.node.append(block());
      rest = end ? rest.slice(end) : "";
    }
  }
}

const block = () => el("div", {}, document.createTextNode(""));
