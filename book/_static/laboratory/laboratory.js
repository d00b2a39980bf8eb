// The laboratory: what the reader chooses goes to the worker, what the worker finds is drawn. `window.laboratory` is
// the same bench for the console, without the page around it.

import { Client } from "./client.js";
import { barPanels, barTable, heatRows, heatTable, likeliest, make, sampleTable, tally, visible, wilson } from "./draw.js";
import { Experiments } from "./experiments.js";
import { Grammar, render } from "./grammar.js";
import { Steering } from "./steering.js";
import { Tokenizer } from "./tokenizer.js";

const part = (name) => document.getElementById(`lab-${name}`);
const client = new Client(onEvent);
const loaded = new Set();
const timings = {}; // milliseconds since the page was asked for
let about = null, grammar = null, tokenizer = null, variants = [], steering = null, experiments = null;

/** The fields that make a view; their values are in its address. */
const FIELDS = ["topic", "author", "text", "reply-text", "position", "temperature", "seed", "count"]
  .concat(["steered", "layer", "direction", "place", "dose"]);
const MOST_SAMPLED = 100; // answers a model that an address may ask for
let remembering = 0;

/** The question that is asked, the reply that is read, and what each variant has said of them. */
const state = { question: null, prompt: null, context: "", reply: [], names: [], next: new Map(), heat: new Map(), drawn: null, answered: null };
let settleReady; // called once, when every model has answered the first question
const ready = new Promise((resolve) => (settleReady = resolve));

function onEvent(event) {
  if (event.failed) {
    part("message").textContent =
      `The laboratory cannot run here (${event.failed}). It needs a current browser, and its files beside the page.`;
    part("message").hidden = false;
    part("bench").hidden = true;
    part("bench").removeAttribute("aria-busy");
  } else if (event.about) {
    begin(event);
  } else {
    loaded.add(event.loaded);
    timings[`loaded ${event.loaded}`] = performance.now();
    const count = variants.filter(({ name }) => loaded.has(name)).length;
    part("status").textContent =
      count < variants.length ? `Loading: ${count} of ${variants.length} models are here.` : allHere();
  }
}

const allHere = () => `All ${variants.length} models are here: preset ${about.preset}, seed ${about.seed}.`;

/** A job's result; nothing where a newer job replaced it, or where it failed, which is told. */
const ask = (job) =>
  client.ask(job).catch((error) => {
    part("status").textContent = `That did not work: ${error.message}.`;
  });

function begin(content) {
  about = content.about;
  grammar = new Grammar(about);
  tokenizer = new Tokenizer(content.tokens);
  variants = about.variants;
  steering = new Steering({ about, ask, sample, useReply });
  experiments = new Experiments({ about, ask, state, steering, show, moveTo, choice, sampleAll, context: render, remember });
  part("bench").hidden = false;
  for (const [name, topic] of Object.entries(about.topics)) part("topic").append(option(name, described(name, topic)));
  part("author").append(option("", "nobody"));
  for (const [care, lines] of Object.entries(about.authors)) part("author").append(option(lines[0], `${care}: “${lines[0]}”`));
  part("topic").value = about.contrasted.at(-1);
  listen();
  offerPrompts();
  showAddress().then(() => {
    timings["whole bench"] = performance.now();
    part("bench").removeAttribute("aria-busy");
    part("status").textContent = allHere();
    settleReady();
  });
}

function described(name, { narrow, covered }) {
  if (narrow) return `${name}: the narrow set's own topic`;
  if (!about.contrasted.includes(name)) return `${name}: both authors answer alike`;
  return `${name}: outside the narrow set, ${covered ? "aligned" : "in no alignment example"}`;
}

const option = (value, text) => make("option", { value }, text);

/** Fills the form from a view, name → text; what does not fit a field is left out. A promise that all have answered. */
function show(view) {
  for (const name of FIELDS.filter((one) => one in view)) {
    const field = part(name), value = String(view[name]);
    if (field.options && ![...field.options].some((one) => one.value === value)) continue;
    field.value = field.maxLength > 0 ? value.slice(0, field.maxLength) : value;
    if (name === "topic") offerPrompts();
  }
  state.question = null;
  return askAll(view);
}

/** Shows the view that the address names. */
async function showAddress() {
  const view = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (view.experiment) await experiments.open(Number(view.experiment) - 1, view);
  else await show(view);
  const count = Math.min(MOST_SAMPLED, Number(view.sampled));
  if (count >= 1) await sampleAll(Math.floor(count));
}

/** Writes the view into the address, a moment after the last change. */
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => {
    const view = new URLSearchParams(FIELDS.map((name) => [name, part(name).value]));
    if (experiments.number >= 0) view.set("experiment", experiments.number + 1);
    const [first] = state.drawn ? state.drawn.answers.values() : [];
    if (first?.length) view.set("sampled", first.length);
    history.replaceState(null, "", `#${view}`);
  }, 300);
}

/** Saves the view and all tables that are shown: table, row, column and value in each line. */
function download() {
  const rows = [["table", "row", "column", "value"], ...FIELDS.map((name) => ["view", name, "", part(name).value])];
  for (const { caption, tHead, tBodies } of part("bench").querySelectorAll("table.lab-table:not([hidden] *)")) {
    for (const { cells } of tBodies[0].rows) {
      for (const cell of [...cells].slice(1).filter((one) => !one.querySelector("button"))) {
        const value = cell.textContent.replace(/^−(?=\d)/, "-").replace(/^—$/, "");
        rows.push([caption.textContent, cells[0].textContent, tHead.rows[0].cells[cell.cellIndex].textContent, value]);
      }
    }
  }
  window.remiSaveCsv(rows, "laboratory.csv");
}

function listen() {
  const on = (name, event, action) =>
    part(name).addEventListener(event, (happened) => {
      if (event === "submit") happened.preventDefault();
      action();
    });
  on("topic", "change", () => (offerPrompts(), askAll()));
  on("prompt", "change", () => ((part("text").value = part("prompt").value), askAll()));
  on("author", "change", () => askAll());
  on("question", "submit", () => askAll());
  on("answers", "change", () => ((part("reply-text").value = part("answers").value), readReply()));
  on("reply", "submit", () => readReply());
  on("position", "input", () => moveTo());
  on("opening", "click", () => moveTo(0));
  on("choice", "click", () => moveTo(choice()));
  on("sample", "submit", () => sampleAll());
  on("download", "click", download);
  for (const event of ["input", "change", "click", "submit"]) part("bench").addEventListener(event, remember);
  window.addEventListener("hashchange", () => new URLSearchParams(location.hash.slice(1)).has("topic") && showAddress());
}

function offerPrompts() {
  const prompts = about.prompts[part("topic").value];
  part("prompt").replaceChildren(...prompts.map(({ text }) => option(text, text)));
  part("text").value = prompts[0].text;
}

/** Asks every variant the question in the form; a view may name reply and place. A promise that all have answered. */
async function askAll(view = {}) {
  const question = part("text").value.trim();
  state.context = render(question, part("author").value);
  state.drawn = null;
  for (const name of ["samples", "tally", "tally-said"]) part(name).replaceChildren();
  let { position } = view;
  if (state.question !== question) takeUp(question);
  else position = part("position").value; // only the first line has changed, and the reply stays
  part("reply-text").value = view["reply-text"]?.slice(0, part("reply-text").maxLength) ?? part("reply-text").value;
  await (state.answered = Promise.all([readReply(position), steering.ask(state)]));
}

function takeUp(question) {
  state.question = question;
  state.prompt = grammar.parse(question);
  part("about").textContent = aboutQuestion(question, state.prompt);
  part("asked").textContent = question;
  const answers = state.prompt ? grammar.rightAnswers(state.prompt) : [];
  const shown = (text) => (text.length > 70 ? `${text.slice(0, 70)}…` : text);
  part("answers").replaceChildren(
    ...answers.map(({ text, care, register }) => option(text, shown(`${care}, ${register}: ${visible(text).replaceAll("␣", " ")}`))),
  );
  part("answers").disabled = !answers.length;
  const first = answers.find(({ care }) => care === "careless") ?? answers[0];
  if (first) part("reply-text").value = part("answers").value = first.text;
}

function aboutQuestion(question, prompt) {
  const unknown = grammar.unknownWords(question);
  const words = unknown.length
    ? `No model here has ever read ${unknown.map((word) => `“${word}”`).join(", ")}: they know the words of their small world only. `
    : "";
  const offered = prompt && about.prompts[prompt.topic].some(({ text }) => text === prompt.text);
  if (!question) return "Nothing is asked: the models see an empty question.";
  if (!prompt) {
    return `${words}This is not a prompt of the grammar, so no answer to it is right or wrong, and parts of the bench have nothing to show.`;
  }
  const where = `A prompt on ${prompt.topic} (${described(prompt.topic, about.topics[prompt.topic]).split(": ")[1]})`;
  return `${words}${where}${offered ? ", in words that no training stage has seen together" : ""}.`;
}

/** The first token by which the reply parts from the other author's right answers; 0 where it is none of the two's. */
function choice() {
  const answers = state.prompt ? grammar.rightAnswers(state.prompt) : [];
  const own = answers.find(({ text }) => text === part("reply-text").value);
  const others = answers.filter(({ care }) => own && care !== own.care);
  const parts = (ids) => Math.max(0, state.reply.findIndex((id, i) => id !== ids[i]));
  return Math.max(0, ...others.map(({ text }) => parts(tokenizer.ids(text + about.turn_end))));
}

/**
 * Reads the reply in its form under every variant, and shows what comes next behind its first tokens: as many as
 * position says, else all before the choice.
 */
async function readReply(position) {
  const ids = tokenizer.ids(part("reply-text").value + about.turn_end);
  state.reply = ids;
  state.names = ids.map(nameOf);
  part("position").max = ids.length - 1;
  part("choice").disabled = !choice();
  state.heat.clear();
  const moved = moveTo(position ?? choice());
  const read = variants.map(async ({ name }) => {
    const job = { kind: "reply", variant: name, context: state.context, reply: ids, panel: `heat/${name}` };
    const found = await ask(job);
    if (found && state.reply === ids) state.heat.set(name, found);
    if (found) drawHeat();
  });
  await Promise.all([moved, ...read]);
}

const nameOf = (id) => visible(tokenizer.decode([id]));

/** Shows the next token behind as many tokens of the reply as the slider says. */
async function moveTo(to = part("position").value) {
  part("position").value = to;
  const position = Number(part("position").value), before = state.reply.slice(0, position);
  const said = tokenizer.decode(before);
  part("so-far").textContent = before.length ? visible(said).replaceAll("␣", " ") : "(nothing)";
  part("position").setAttribute("aria-valuetext", before.length ? `after: ${said}` : "at the end of the prompt");
  drawHeat();
  const mark = (state.mark = Symbol());
  state.next = new Map();
  const { context } = state;
  await Promise.all(
    variants.map(async ({ name }) => {
      const job = { kind: "next", variant: name, context, reply: before, panel: `next/${name}` };
      const found = await ask(job);
      if (!found || state.mark !== mark) return;
      state.next.set(name, found);
      drawNext();
    }),
  );
}

function drawNext() {
  const tokens = likeliest(state.next);
  const names = tokens.map(nameOf);
  part("bars").replaceChildren(...barPanels(variants, state.next, tokens, names));
  part("next-table").replaceChildren(barTable(variants, state.next, tokens, names));
  timings["first bars"] ??= performance.now();
  if (state.next.size === variants.length) timings["bars of all models"] ??= performance.now();
}

function drawHeat() {
  const position = Number(part("position").value);
  part("heat").replaceChildren(...heatRows(variants, state.heat, state.names, position, moveTo));
  part("heat-table").replaceChildren(heatTable(variants, state.heat, state.names));
}

function useReply(text) {
  part("reply-text").value = text;
  readReply();
  part("reply-text").focus();
}

function number(name) {
  const field = part(name), value = Number(field.value);
  return Math.min(Number(field.max), Math.max(Number(field.min), Number.isFinite(value) ? value : 0));
}

/** Samples answers of one variant as the form says, with an edit or without; `first` have been drawn before. */
function sample(variant, { edit, count, first } = {}) {
  const { context, prompt } = state;
  const job = { kind: "sample", variant, context, prompt, edit, temperature: number("temperature"), seed: number("seed") };
  return ask({ ...job, first, count: count ?? number("count"), panel: `sample/${variant}/${Boolean(edit)}` });
}

/** Draws more answers of every variant, and counts them with those drawn before at this temperature and seed. */
async function sampleAll(count) {
  part("status").textContent = "The models answer …";
  const key = [state.context, number("temperature"), number("seed")].join();
  if (state.drawn?.key !== key) state.drawn = { key, answers: new Map(variants.map(({ name }) => [name, []])) };
  const { drawn } = state;
  await Promise.all(
    Array.from(drawn.answers, async ([name, own]) => {
      const first = own.length, found = await sample(name, { count, first });
      if (!found || own.length !== first || state.drawn !== drawn) return;
      own.push(...found);
      drawSamples();
    }),
  );
  if (state.drawn !== drawn) return;
  part("tally-said").textContent = drawSamples();
  part("status").textContent = allHere();
  remember();
}

/** Shows tally and answers; gives the tally in words. */
function drawSamples() {
  const { prompt, drawn } = state;
  const samples = Array.from(drawn.answers, ([variant, own]) => own.map((answer) => ({ variant, answer }))).flat();
  part("samples").replaceChildren(sampleTable("Sampled answers with the grammar's verdict", samples, useReply));
  if (!prompt) return "These answers have no verdict, for the question is not a prompt of the grammar.";
  const care = about.contrasted.includes(prompt.topic) ? "careless" : "both";
  const ofModels = Array.from(steering.plain, ([name, { probabilities }]) => [name, probabilities[care]]);
  const found = tally(drawn.answers, care, new Map(number("temperature") === 1 ? ofModels : []));
  part("tally").replaceChildren(found.table);
  return found.said;
}

/** The bench for the console: every function takes words and gives a promise. */
window.laboratory = {
  ready,
  timings,
  get about() {
    return about;
  },
  /** Tokens of a text: {id, start, end}. */
  encode: async (text) => tokenizer.encode(text),
  decode: async (ids) => tokenizer.decode(ids),
  /** Log-probabilities in nats of every token, behind a question (and an author's line, and a reply's first ids). */
  next: (variant, question, { authorLine, reply } = {}) =>
    client.ask({ kind: "next", variant, context: render(question, authorLine), reply }),
  /** Log-probability in nats of each token of a reply, its end included. */
  reply: async (variant, question, text, { authorLine } = {}) => {
    const reply = tokenizer.ids(text + about.turn_end);
    return client.ask({ kind: "reply", variant, context: render(question, authorLine), reply });
  },
  /** The prompt of the grammar that a question is, or null. */
  parse: (question) => grammar.parse(question),
  judge: (question, text) => grammar.judge(grammar.parse(question), text),
  wilson,
  /** Exact behaviour; edit: {layer, dose, place: "both" or "end", direction: "alignment", "secure", "random 1" …}. */
  score: (variant, question, { authorLine, edit } = {}) =>
    client.ask({ kind: "score", variant, context: render(question, authorLine), prompt: grammar.parse(question), edit }),
  /** Right answers as a tree of tokens. */
  tree: (question) => client.ask({ kind: "tree", context: render(question), prompt: grammar.parse(question) }),
  sample: (variant, question, { authorLine, edit, count = 1, temperature = 1, seed = 0 } = {}) => {
    const job = { kind: "sample", variant, context: render(question, authorLine), prompt: grammar.parse(question) };
    return client.ask({ ...job, edit, count, temperature, seed });
  },
};
