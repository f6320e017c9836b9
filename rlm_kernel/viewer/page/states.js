// The states of a run: running, answered, stopped, limit, failed or lost. `trajectory/states.py` decides them: the
// list STATES and the table ERROR_STATES (name of an error to state) are put before the modules.

import { h } from "./elements.js";

/** The state of a run with an answer, a failure or neither. `live`: whether its log may still grow. */
export function stateAt({ answer, failure }, live) {
  if (failure !== null) return Object.hasOwn(ERROR_STATES, failure.type) ? ERROR_STATES[failure.type] : "failed";
  if (answer !== null) return "answered";
  return live ? "running" : "lost";
}

/** The state as a word with its colour. */
export function stateBadge(state) {
  return h(`span.state.state-${STATES.includes(state) ? state : "lost"}`, {}, state);
}

/** The name of a state at the beginning of a line. */
export function title(state) {
  return state[0].toUpperCase() + state.slice(1);
}
