/** What this browser keeps for the page. It may be forbidden (then it is kept as long as the page), full, or cleared at any time. */

class Memory {
  #kept = new Map();

  getItem(name) {
    return this.#kept.get(name) ?? null;
  }

  setItem(name, text) {
    this.#kept.set(name, text);
  }

  removeItem(name) {
    this.#kept.delete(name);
  }

  key(place) {
    return [...this.#kept.keys()][place] ?? null;
  }

  get length() {
    return this.#kept.size;
  }
}

function open() {
  try {
    return localStorage;
  } catch {
    return new Memory(); // its user forbids pages to keep anything
  }
}

const shelf = open();

export const read = (name) => shelf.getItem(name);

export const remove = (name) => shelf.removeItem(name);

export const names = () => Array.from({ length: shelf.length }, (_, place) => shelf.key(place));

/** Tells whether there was room. */
export function write(name, text) {
  try {
    shelf.setItem(name, text);
    return true;
  } catch {
    return false;
  }
}
