// Part 5 of the bench: a direction is added to one model's residual stream or taken away, and its exact behaviour
// follows.

import { make, sampleTable, shown, table } from "./draw.js";
import { legend, plane } from "./plane.js";

const part = (name) => document.getElementById(`lab-${name}`);
const CONTROLS = ["steered", "layer", "place", "direction"];
const MEANINGS = { alignment: "instruct − base", secure: "secure − instruct" };

/** What the slider multiplies, in words. */
const meant = (direction) => MEANINGS[direction] ?? direction.replace("random", "random direction");

export class Steering {
  /** about: content of laboratory.json; ask, sample, useReply: what the bench gives to its parts. */
  constructor({ about, ask, sample, useReply }) {
    Object.assign(this, { about, request: ask, sample, useReply });
    this.plain = new Map(); // variant → behaviour on the question as it is
    this.moved = null;
    this.trail = [];
    const option = (value, text) => make("option", { value }, text);
    part("steered").append(...about.variants.map(({ name }) => option(name, name)));
    part("steered").value = about.variants.some(({ name }) => name === "instruct") ? "instruct" : about.variants[0].name;
    const layers = Array.from({ length: about.config.num_hidden_layers }, (_, layer) => layer);
    part("layer").append(
      ...layers.map((layer) => option(layer, layer === about.layer ? `${layer}, as in “causes”` : `${layer}`)),
    );
    part("layer").value = about.layer;
    const random = Array.from({ length: about.n_random }, (_, i) => `random ${i + 1}`);
    part("direction").append(
      ...["alignment", "secure", ...random].map((name) => option(name, name in MEANINGS ? `${name}: ${meant(name)}` : name)),
    );
    for (const name of CONTROLS) part(name).addEventListener("change", () => this.restart());
    part("dose").addEventListener("input", () => this.#move());
    part("reset").addEventListener("click", () => {
      part("dose").value = 0;
      this.restart();
    });
    part("steer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#speak();
    });
  }

  /** Takes up a new question; a promise that all variants are scored on it. */
  async ask({ context, prompt }) {
    Object.assign(this, { context, prompt });
    this.plain = new Map();
    part("moved-samples").replaceChildren();
    const why = prompt ? "" : "Exact behaviour needs a prompt of the grammar: only there are all right answers known.";
    part("no-steer").textContent = why;
    part("no-steer").hidden = !why;
    for (const name of ["steer", "scores", "plane", "effect"]) part(name).hidden = Boolean(why);
    if (why) return;
    const scored = this.about.variants.map(async ({ name }) => {
      const found = await this.request({ kind: "score", variant: name, context, prompt, panel: `score/${name}` });
      if (!found || this.context !== context) return;
      this.plain.set(name, found);
      this.#draw();
    });
    await Promise.all([...scored, this.restart()]);
  }

  get #edit() {
    const [place, direction] = ["place", "direction"].map((name) => part(name).value);
    return { layer: Number(part("layer").value), dose: Number(part("dose").value), place, direction };
  }

  /** Forgets where the slider has been: it starts anew from another question, model, layer, place or direction. */
  restart() {
    this.trail = [];
    this.moved = null;
    return this.#move();
  }

  async #move() {
    const { context, prompt } = this;
    const variant = part("steered").value, edit = this.#edit;
    part("dose-shown").textContent = `${shown(edit.dose, 1)} × (${meant(edit.direction)})`;
    part("dose").setAttribute("aria-valuetext", `${shown(edit.dose, 1)} times ${meant(edit.direction)}`);
    if (!prompt) return;
    const found = await this.request({ kind: "score", variant, context, prompt, edit, panel: "steer" });
    if (!found || this.context !== context || part("steered").value !== variant) return;
    if (this.moved) this.trail.push(this.moved);
    this.moved = found;
    this.#draw();
  }

  #draw() {
    const { about, plain, moved } = this;
    const variant = part("steered").value, from = plain.get(variant);
    const contrasted = about.contrasted.includes(this.prompt.topic);
    if (from && moved) part("effect").textContent = this.#told(variant, from, moved);
    const rows = this.#rows();
    const others = about.variants.filter(({ name }) => plain.has(name));
    const headings = ["", `${variant} as it is`, `${variant}, moved`, "change", ...others.map(({ name }) => name)];
    const full = rows.map(([name, read]) => [
      name,
      from ? shown(read(from)) : "…",
      moved ? shown(read(moved)) : "…",
      from && moved ? shown(read(moved) - read(from)) : "…",
      ...others.map((one) => shown(read(plain.get(one.name)))),
    ]);
    headings[0] = "on this prompt";
    part("scores").replaceChildren(table("Exact behaviour: the moved model, and all models as they are", headings, full));
    const points = contrasted ? others.map((one) => ({ ...one, ...plain.get(one.name) })) : [];
    const path = from && moved ? { from, to: moved, trail: this.trail } : null;
    const alternative = contrasted
      ? `Care and register of ${points.length} models as points, and how far ${variant} moves; the table below holds the numbers.`
      : "";
    part("plane").replaceChildren(
      ...(contrasted
        ? [plane(points, path, alternative), legend(points)]
        : ["On this topic the two authors answer alike: there is no class log-odds to move."]),
    );
  }

  #rows() {
    const probability = (name) => [`P(${name === "both" ? "right" : name})`, (one) => one.probabilities[name]];
    const contrasted = this.about.contrasted.includes(this.prompt.topic);
    const classes = contrasted ? ["careful", "careless"] : ["both"];
    return [
      ...(contrasted ? [["class log-odds A(p), nats", (one) => one.care]] : []),
      ["register log-odds, nats", (one) => one.register],
      ...[...classes, "wrong slot", "other"].map(probability),
    ];
  }

  #told(variant, from, moved) {
    const { dose, direction } = this.#edit;
    const care = Number.isFinite(from.care)
      ? `class log-odds ${shown(from.care)} → ${shown(moved.care)}, ` : "";
    const off = (one) => one.probabilities["wrong slot"] + one.probabilities.other;
    return (
      `${variant} with ${shown(dose, 1)} × (${meant(direction)}): ${care}register ${shown(from.register)} → ` +
      `${shown(moved.register)} nats; off the grammar ${shown(off(from))} → ${shown(off(moved))}.`
    );
  }

  async #speak() {
    const variant = part("steered").value;
    const answers = await this.sample(variant, { edit: this.#edit, count: 5 });
    if (!answers) return;
    const { dose, direction } = this.#edit, samples = answers.map((answer) => ({ variant, answer }));
    const caption = `Answers of ${variant} with ${shown(dose, 1)} × (${meant(direction)})`;
    part("moved-samples").replaceChildren(sampleTable(caption, samples, this.useReply));
  }
}
