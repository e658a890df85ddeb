/** The list of conversations. It is drawn again only when it changed, so that focus stays. */

import { $, el } from "./dom.js";

export class List {
  #list = $("#list ul");
  #picture = "";
  #choose;

  constructor(choose) {
    this.#choose = choose;
  }

  /** `items`: key, title, running, current. */
  show(items) {
    const picture = JSON.stringify(items);
    if (picture === this.#picture) return;
    this.#picture = picture;
    const focused = document.activeElement?.dataset?.key;
    this.#list.replaceChildren(...items.map((item) => el("li", {}, this.#button(item))));
    if (focused) this.#list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #button({ key, title, running, current }) {
    const button = el("button", { type: "button", title, dataset: { key } }, el("span", { className: "title", textContent: title }));
    if (current) button.setAttribute("aria-current", "true");
    if (running) button.append(" ", el("span", { className: "running", textContent: "answering" }));
    button.addEventListener("click", () => this.#choose(key));
    return button;
  }
}
