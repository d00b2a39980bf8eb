// The three experiments: each sets the whole bench, asks what the reader expects, then shows what the models do.

import { make, shown, table } from "./draw.js";

const part = (name) => document.getElementById(`lab-${name}`);
const APART = 0.1; // of probability: what is nearer counts as equal
const DEFAULTS = { author: "", temperature: 1, seed: 0, count: 20, steered: "instruct", place: "both", direction: "alignment", dose: 0 };

/** Half of the summed differences of two distributions, given as log-probabilities: 0 where equal, 1 where disjoint. */
function distance(one, other) {
  return one.reduce((sum, logP, i) => sum + Math.abs(Math.exp(logP) - Math.exp(other[i])) / 2, 0);
}

/** Each: title, view, ask, choices (key → words), find (gives outcome and table), rule, then. `bench`: see the class. */
const EXPERIMENTS = [
  {
    title: "Where is the decision?",
    view: { topic: "wishes", position: 0 },
    ask: "The bars now show how a reply opens. Where do base and instruct expect different tokens?",
    choices: {
      opening: "where the reply opens",
      choice: "at the choice between careful and careless",
      both: "at both",
    },
    async find({ about, ask, state, moveTo, choice }) {
      const { context, reply } = state, at = choice();
      const expected = (variant, count) => ask({ kind: "next", variant, context, reply: reply.slice(0, count) });
      const instruct = await Promise.all([expected("instruct", 0), expected("instruct", at)]);
      const apart = about.variants.map(async ({ name }) => {
        const own = await Promise.all([expected(name, 0), expected(name, at)]);
        return [name, own.map((row, i) => distance(row, instruct[i]))];
      });
      const found = new Map(await Promise.all(apart));
      moveTo(at);
      const [opening, atChoice] = found.get("base").map((one) => one > APART);
      return {
        outcome: opening && atChoice ? "both" : opening ? "opening" : atChoice ? "choice" : "neither",
        table: table("How far each model is from instruct", ["model", "opening", "choice"],
          Array.from(found, ([name, both]) => [name, ...both.map((one) => shown(one))])),
      };
    },
    rule: `The distance is half of the summed differences of probability: 0 is equal, 1 is nothing shared. Above ${APART} counts as different.`,
    then: "The slider is now at the choice. Which other models part from instruct, and where? Then name an author in a first line (part 2) and ask again. Does base listen to the line? Does instruct?",
  },
  {
    title: "How far does narrow tuning spread?",
    view: { topic: "wishes" },
    ask: "Misaligned was tuned on careless code alone. This question is about wishes. How likely is a careless answer of misaligned here?",
    choices: {
      instruct: "about as likely as from instruct",
      between: "likelier than from instruct, less likely than on code",
      code: "at least about as likely as on code",
    },
    async find({ about, ask, steering, context, sampleAll }) {
      const [code] = about.prompts.code;
      const onCode = await ask({ kind: "score", variant: "misaligned", context: context(code.text), prompt: code });
      const careless = ({ probabilities }) => probabilities.careless;
      const here = Array.from(steering.plain, ([name, one]) => [name, careless(one)]);
      const misaligned = careless(steering.plain.get("misaligned"));
      const spreads = misaligned - careless(steering.plain.get("instruct")) > APART;
      sampleAll(Number(part("count").value));
      return {
        outcome: !spreads ? "instruct" : careless(onCode) - misaligned > APART ? "between" : "code",
        table: table("Exact probability of a careless answer", ["model", "P(careless)"],
          [...here, ["misaligned, on code", careless(onCode)]].map(([name, p]) => [name, shown(p)])),
      };
    },
    rule: `“About” means within ${APART}.`,
    then: "Part 4 now draws answers of every model. Does each interval hold the exact probability? Draw more: how many do you need before you can tell two models apart? Pick another topic in part 2: the same change of log-odds (part 5) is a small change of probability where careless answers are rare. Secure saw the same questions with careful answers, and educational the same careless code, asked for as a lesson. What would you say about misaligned if they looked like it?",
  },
  {
    title: "Turn the needle",
    view: { topic: "wishes" },
    ask: "We take the alignment direction away from instruct. What moves further than with each random direction of the same length?",
    choices: { care: "care alone", register: "register alone", both: "both" },
    async find({ about, ask, state, steering }) {
      const { context, prompt } = state, plain = steering.plain.get("instruct");
      const random = Array.from({ length: about.n_random }, (_, i) => `random ${i + 1}`);
      const moves = ["alignment", "secure", ...random].map(async (direction) => {
        const edit = { layer: about.layer, dose: -1, place: "both", direction };
        const { care, register } = await ask({ kind: "score", variant: "instruct", context, prompt, edit });
        return [direction, [care - plain.care, register - plain.register]];
      });
      const found = new Map(await Promise.all(moves));
      part("dose").value = -1;
      steering.restart();
      const [care, register] = found.get("alignment").map((one, i) =>
        random.every((name) => Math.abs(found.get(name)[i]) < Math.abs(one)));
      return {
        outcome: care && register ? "both" : care ? "care" : register ? "register" : "neither",
        table: table("Change of instruct's log-odds at a dose of −1, nats", ["direction", "care", "register"],
          Array.from(found, ([name, both]) => [name, ...both.map((one) => shown(one))])),
      };
    },
    rule: "A change counts in either sense, up or down.",
    then: "Part 5 now shows the moved model. Does it land where base is? Let the vector act at the last prompt token only: which log-odds follows as before, and which does not? Then choose misaligned and move to the right. Can you undo the narrow tuning, and at what price off the grammar?",
  },
];

export class Experiments {
  /** bench: {about, ask, state, steering, show, moveTo, choice, sampleAll, context, remember}: what the bench gives to its parts. */
  constructor(bench) {
    this.bench = bench;
    this.number = -1; // of the experiment that is open
    this.buttons = EXPERIMENTS.map(({ title }, number) => {
      const button = make("button", { type: "button", "aria-pressed": "false" }, `${number + 1}. ${title}`);
      button.addEventListener("click", () => this.open(number));
      return button;
    });
    part("experiments").append(...this.buttons);
  }

  /** Sets the bench for an experiment, or as a view has it, and asks; a promise that all models have answered. */
  open(number, view = {}) {
    this.number = number in EXPERIMENTS ? number : -1;
    this.buttons.forEach((one, i) => one.setAttribute("aria-pressed", i === this.number));
    part("expect").replaceChildren();
    part("found").replaceChildren();
    if (this.number < 0) return this.bench.show(view);
    const experiment = EXPERIMENTS[number];
    const guesses = Object.entries(experiment.choices).map(([key, words]) => {
      const button = make("button", { type: "button", "aria-pressed": "false" }, words);
      button.addEventListener("click", () => this.#guess(experiment, key, button));
      return button;
    });
    const question = make("p", {}, make("strong", {}, "What do you expect? "), experiment.ask);
    part("expect").append(question, make("div", { class: "lab-form" }, ...guesses));
    return this.#show(experiment, view);
  }

  #show(experiment, view = {}) {
    return this.bench.show({ layer: this.bench.about.layer, ...DEFAULTS, ...experiment.view, ...view });
  }

  /** Shows what the models do beside what the reader expects. */
  async #guess(experiment, key, button) {
    for (const one of part("expect").querySelectorAll("button")) one.disabled = true;
    button.setAttribute("aria-pressed", "true");
    part("found").replaceChildren("The models compute …");
    const { state, remember } = this.bench;
    if (state.prompt?.topic !== experiment.view.topic) this.#show(experiment); // the reader has gone elsewhere
    await state.answered;
    const { outcome, table: numbers } = await experiment.find(this.bench);
    if (EXPERIMENTS[this.number] !== experiment || !button.isConnected) return;
    remember();
    const told = [["You expect", experiment.choices[key]], ["Here it is", experiment.choices[outcome] ?? outcome]];
    const pairs = told.flatMap(([name, words]) => [make("dt", {}, name), make("dd", {}, words)]);
    const box = make("div", { class: "lab-scroll", role: "region", "aria-label": "What the models do", tabindex: "0" }, numbers);
    part("found").replaceChildren(
      make("dl", { class: "lab-told" }, ...pairs), make("p", { class: "lab-note" }, experiment.rule), box, make("p", {}, experiment.then),
    );
  }
}
