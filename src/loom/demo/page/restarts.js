/** Which earlier chunks a run's later ones take back: the twin of `loom/model/retraction.py`, tested against the same table. Pure. */

const isIn = (source, step) => source === step || (source ?? "").startsWith(`${step}/`);

/** The steps of a log of which nothing was read yet: source to the seqs of its action-start and action-complete. */
export const noSteps = () => Object.create(null); // a step may be called "constructor"

/** Take the next chunk; gives what it takes back, `{ after, before, step, complete }`, or null. Changes `steps`. */
export function retractionOf(steps, seq, chunk) {
  const { type, source, data } = chunk;
  if (type === "start") return restart(steps, seq, data?.kept_through ?? 0);
  if (source === undefined || source === null) return null;
  if (type === "action-complete" && steps[source]) steps[source].ended = seq;
  return type === "action-start" ? begin(steps, seq, source, data) : null;
}

function restart(steps, seq, kept) {
  if (kept >= seq - 1) return null;
  for (const [source, step] of Object.entries(steps)) {
    if (step.began > kept) delete steps[source];
    else if (step.ended > kept) step.ended = null;
  }
  return { after: kept, before: seq, step: null, complete: [] };
}

function begin(steps, seq, source, data) {
  const known = steps[source];
  steps[source] = { began: seq, ended: null };
  if (known ? known.ended !== null : !(Number.isInteger(data?.attempt) && data.attempt > 1)) return null;
  const below = Object.keys(steps).filter((other) => other.startsWith(`${source}/`));
  const complete = below.filter((other) => steps[other].ended !== null);
  for (const other of below) if (!complete.includes(other)) delete steps[other];
  return { after: (known?.began ?? 1) - 1, before: seq, step: source, complete };
}

/** True if a chunk of this source at this seq is taken back. */
export function covers({ after, before, step, complete }, seq, source) {
  if (seq <= after || seq >= before) return false;
  return step === null || (isIn(source, step) && !complete.some((other) => isIn(source, other)));
}
