/** The two panels: beside the chat where there is room, over it where there is not. */

import { $ } from "./dom.js";
import * as shelf from "./shelf.js";

const wide = { list: matchMedia("(min-width: 52rem)"), trace: matchMedia("(min-width: 75rem)") };
const buttons = { list: $("#show-list"), trace: $("#show-trace") };
const SHOWN = "loom.trace";

const panel = (name) => $(`#${name}`);
const covers = (name) => !panel(name).hidden && !wide[name].matches;

function set(name, shown) {
  panel(name).hidden = !shown;
  buttons[name].setAttribute("aria-expanded", String(shown));
  const covered = covers("list") || covers("trace");
  $("#scrim").hidden = !covered;
  $("main").inert = covered;
}

/** What fits: the list always has room on a wide screen, the trace if its reader did not close it. */
function settle() {
  set("list", wide.list.matches);
  set("trace", wide.trace.matches && shelf.read(SHOWN) !== "no");
}

export function open(name) {
  for (const other of ["list", "trace"]) if (other !== name && covers(other)) set(other, false);
  set(name, true);
  if (name === "trace") showNewest();
  if (covers(name)) panel(name).querySelector("button").focus();
}

function showNewest() {
  shelf.write(SHOWN, "yes");
  $("#rows").scrollTop = $("#rows").scrollHeight;
}

export function close(name) {
  set(name, false);
  if (name === "trace" && wide.trace.matches) shelf.write(SHOWN, "no");
  buttons[name].focus();
}

/** Close what covers the chat. Tells whether anything did. */
export function uncover() {
  const covering = ["list", "trace"].filter(covers);
  covering.forEach(close);
  return covering.length > 0;
}

export function arrange() {
  for (const name of ["list", "trace"]) {
    buttons[name].addEventListener("click", () => (panel(name).hidden ? open(name) : close(name)));
    wide[name].addEventListener("change", settle);
  }
  $("#hide-trace").addEventListener("click", () => close("trace"));
  $("#scrim").addEventListener("click", uncover);
  settle();
}
