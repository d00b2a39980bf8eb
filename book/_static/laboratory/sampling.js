// Answers drawn token by token from what a model expects next.

import { logSoftmax } from "./model.js";

/** Longest answer, in tokens; one that does not end within them is off the grammar. */
const LONGEST = 64;

/** Numbers from 0 to 1 that are the same for the same text: a small generator (mulberry32) started by a hash. */
export function randomNumbers(text) {
  let state = 2166136261;
  for (const character of text) state = Math.imul(state ^ character.codePointAt(0), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** One token drawn from logits; at temperature 0 the likeliest. */
function draw(logits, temperature, random) {
  if (temperature === 0) return logits.indexOf(Math.max(...logits));
  let left = random();
  const logP = logSoftmax(logits.map((one) => one / temperature));
  for (let token = 0; token < logP.length; token++) {
    left -= Math.exp(logP[token]);
    if (left < 0) return token;
  }
  return logP.length - 1;
}

/**
 * Token lists of `count` answers behind the node `root` of a reading, each a branch of its own, without the end token.
 * finished says whether an answer ended. `first` is the number of the first answer: those after it are new ones.
 */
export function sampleAnswers(reading, root, { first = 0, count, temperature, seed, end }) {
  const answers = Array.from({ length: count }, (_, number) => ({
    ids: [],
    node: root,
    finished: false,
    random: randomNumbers(`${seed}/${first + number}`),
  }));
  for (let step = 0; step < LONGEST; step++) {
    const open = answers.filter((answer) => !answer.finished);
    if (!open.length) break;
    const rows = reading.logits(open.map((answer) => answer.node));
    const drawn = open.map((answer, i) => draw(rows[i], temperature, answer.random));
    open.forEach((answer, i) => {
      answer.finished = drawn[i] === end;
      if (!answer.finished) answer.ids.push(drawn[i]);
    });
    const going = open.filter((answer) => !answer.finished);
    const added = reading.extend(going.map((answer) => answer.ids.at(-1)), going.map((answer) => answer.node));
    going.forEach((answer, i) => (answer.node = added + i));
  }
  return answers.map(({ ids, finished }) => ({ ids, finished }));
}
