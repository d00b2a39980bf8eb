// Does all computing, in a thread of its own, so that the page stays live. Loads the models one after another, and
// does jobs as they come: {id, panel, kind, …} in, {id, result} or {id, error} out.

import { Grammar } from "./grammar.js";
import { Model, Reading, logSoftmax } from "./model.js";
import { addChanges, readTensors } from "./safetensors.js";
import { sampleAnswers } from "./sampling.js";
import { answerTree, directionEdit, readTree, scoreTree } from "./scoring.js";
import { Tokenizer } from "./tokenizer.js";

const models = new Map();
const trees = new Map(); // variant → last question read with its right answers, which the slider reads again and again
let world = null; // {about, grammar, tokenizer, directions}
let waiting = [];
let working = false;

async function fetched(name) {
  const response = await fetch(new URL(`data/${name}`, import.meta.url));
  if (!response.ok) throw new Error(`${name} cannot be had (${response.status})`);
  return response;
}

async function tensorsOf(name) {
  return readTensors(await (await fetched(name)).arrayBuffer());
}

async function load() {
  const [about, tokens] = await Promise.all(
    ["laboratory.json", "tokenizer.json"].map(async (name) => (await fetched(name)).json()),
  );
  world = { about, grammar: new Grammar(about), tokenizer: new Tokenizer(tokens), end: about.turn_end };
  postMessage({ about, tokens });
  const base = await tensorsOf("base.safetensors");
  for (const { name } of about.variants) {
    const tensors = name === "base" ? base : addChanges(base, await tensorsOf(`${name}.safetensors`));
    models.set(name, new Model(about.config, tensors));
    postMessage({ loaded: name });
    await work();
  }
  world.directions = await tensorsOf("directions.safetensors");
  postMessage({ loaded: "directions" });
  await work();
}

/** Jobs that are done while models still load: the first bars should not wait for sums over all right answers. */
const QUICK = ["next", "tree"];

/** The next job that can be done; others wait for their model. */
function nextJob() {
  const ready = (job) =>
    (!job.variant || models.has(job.variant)) && (world.directions || QUICK.includes(job.kind));
  const place = world ? waiting.findIndex(ready) : -1;
  return place < 0 ? null : waiting.splice(place, 1)[0];
}

async function work() {
  if (working) return;
  working = true;
  for (let job = nextJob(); job; job = nextJob()) {
    try {
      postMessage({ id: job.id, result: JOBS[job.kind](job) });
    } catch (error) {
      postMessage({ id: job.id, error: error.message });
    }
    await new Promise((resume) => setTimeout(resume)); // lets newer messages replace jobs that wait
  }
  working = false;
}

onmessage = ({ data }) => {
  // Of jobs for one panel only the newest matters: a slider that moves on does not wait for where it was.
  const replaced = waiting.filter((job) => data.panel && job.panel === data.panel);
  waiting = waiting.filter((job) => !replaced.includes(job));
  for (const job of replaced) postMessage({ id: job.id, replaced: true });
  waiting.push(data);
  work();
};

function plainReading(variant, context) {
  const reading = new Reading(models.get(variant));
  reading.extend(world.tokenizer.ids(context));
  return reading;
}

/** Question and right answers as a variant reads them; kept until the next question. */
function treeReading(variant, question, prompt) {
  const key = JSON.stringify([question, prompt]);
  if (trees.get(variant)?.key !== key) {
    const tree = answerTree(question, prompt, world);
    trees.set(variant, { key, tree, reading: readTree(models.get(variant), tree) });
  }
  return trees.get(variant);
}

function editOf({ edit, prompt }, root) {
  const { directions, about } = world;
  return directionEdit(directions, about.contrasted, prompt.topic, { ...edit, root });
}

const JOBS = {
  /** Log-probabilities, in nats, of every token of the vocabulary behind question and first tokens of a reply. */
  next({ variant, context, reply = [] }) {
    const reading = plainReading(variant, context);
    if (reply.length) reading.extend(reply);
    return logSoftmax(reading.logits([reading.tokens.length - 1])[0]);
  },

  /** Log-probability, in nats, of each token of a reply. */
  reply({ variant, context, reply }) {
    const reading = plainReading(variant, context);
    const root = reading.tokens.length - 1;
    reading.extend(reply);
    return reading.logits(reply.map((_, i) => root + i)).map((logits, i) => logSoftmax(logits)[reply[i]]);
  },

  /** Exact behaviour on a prompt of the grammar, as the variant is or with an edit. */
  score(job) {
    const { tree, reading } = treeReading(job.variant, job.context, job.prompt);
    const read = job.edit ? reading.edited(editOf(job, tree.root)) : reading;
    return scoreTree(read, tree, world.about);
  },

  /** Sampled answers, each with the grammar's verdict where the prompt is one of the grammar. */
  sample(job) {
    const { variant, context, prompt, first, count, temperature, seed } = job;
    const { tokenizer, grammar } = world;
    const plain = plainReading(variant, context);
    const root = plain.tokens.length - 1;
    const reading = job.edit ? plain.edited(editOf(job, root)) : plain;
    const [end] = tokenizer.ids(world.end);
    return sampleAnswers(reading, root, { first, count, temperature, seed: `${seed}/${variant}`, end }).map((answer) => {
      const text = tokenizer.decode(answer.ids);
      const verdict = answer.finished ? prompt && grammar.judge(prompt, text) : { care: "other", register: null };
      return { ...answer, text, verdict };
    });
  },

  /** Right answers as a tree of tokens. */
  tree: ({ context, prompt }) => answerTree(context, prompt, world),
};

load().catch((error) => postMessage({ failed: error.message }));
