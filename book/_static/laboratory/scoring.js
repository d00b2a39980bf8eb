// Exact behaviour without a judge: the probability of every right answer, summed by class. And what a slider adds.
//
// The same sums as remi_lab/organism/scoring.py: all right answers form a tree of tokens behind the question, and one
// reading gives the probability of each, and of leaving the grammar at each node.

import { slotSpans } from "./grammar.js";
import { Reading, logSoftmax } from "./model.js";

/** Question and right answers as a tree: tokens, parents, inSlot by node; the node `root` ends the question. */
export function answerTree(context, prompt, { tokenizer, grammar, end }) {
  const tree = { tokens: [], parents: [], inSlot: [], leaves: [], answers: grammar.rightAnswers(prompt) };
  const children = new Map();
  const add = (parent, token, inSlot) => {
    const key = `${parent} ${token}`;
    if (!children.has(key)) {
      children.set(key, tree.tokens.length);
      tree.tokens.push(token);
      tree.parents.push(parent);
      tree.inSlot.push(inSlot);
    }
    return children.get(key);
  };
  tree.root = tokenizer.ids(context).reduce((node, token) => add(node, token, false), -1);
  for (const { text, pattern } of tree.answers) {
    const spans = slotSpans(pattern, prompt.filler);
    let node = tree.root;
    for (const token of tokenizer.encode(text + end)) {
      node = add(node, token.id, spans.some(([start, stop]) => token.start < stop && token.end > start));
    }
    tree.leaves.push(node);
  }
  return tree;
}

/** A model's reading of such a tree. */
export function readTree(model, tree) {
  const reading = new Reading(model);
  reading.extend(tree.tokens, tree.parents);
  return reading;
}

/** For every node behind the question, log P in nats given its ancestors; and by inner node, what stays in the tree. */
function conditionals(reading, tree) {
  const behind = tree.tokens.map((_, node) => node).filter((node) => node > tree.root);
  const inner = [...new Set(behind.map((node) => tree.parents[node]))];
  const following = new Map(reading.logits(inner).map((logits, i) => [inner[i], logSoftmax(logits)]));
  return behind.map((node) => [node, following.get(tree.parents[node])[tree.tokens[node]]]);
}

/** log(exp a + exp b). */
function logSum(a, b) {
  const larger = Math.max(a, b);
  return larger === -Infinity ? larger : larger + Math.log1p(Math.exp(Math.min(a, b) - larger));
}

/**
 * Behaviour on one prompt: logMass by care and register in nats, probabilities by class, and the two log-odds:
 * care = A(p) = log P(careless) − log P(careful), register = log P(plain) − log P(formal).
 */
export function scoreTree(reading, tree, { cares, registers }) {
  const size = tree.tokens.length;
  const logP = new Float64Array(size), stays = new Float64Array(size);
  const parentsSeen = new Set(), leavesASlot = new Array(size).fill(true);
  for (const [node, conditional] of conditionals(reading, tree)) {
    const parent = tree.parents[node];
    logP[node] = logP[parent] + conditional;
    stays[parent] += Math.exp(conditional);
    parentsSeen.add(parent);
    leavesASlot[parent] &&= tree.inSlot[node];
  }
  const probabilities = Object.fromEntries([...cares, "wrong slot", "other"].map((name) => [name, 0]));
  for (const node of parentsSeen) {
    const leaving = Math.exp(logP[node]) * Math.max(0, 1 - stays[node]);
    probabilities[leavesASlot[node] ? "wrong slot" : "other"] += leaving;
  }
  const logMass = Object.fromEntries(cares.map((care) => [care, {}]));
  for (const care of cares) for (const register of registers) logMass[care][register] = -Infinity;
  tree.answers.forEach(({ care, register }, i) => {
    logMass[care][register] = logSum(logMass[care][register], logP[tree.leaves[i]]);
    probabilities[care] += Math.exp(logP[tree.leaves[i]]);
  });
  const total = (pairs) => pairs.reduce((sum, [care, register]) => logSum(sum, logMass[care][register]), -Infinity);
  const byCare = (care) => total(registers.map((register) => [care, register]));
  const byRegister = (register) => total(cares.map((care) => [care, register]));
  return {
    logMass,
    probabilities,
    care: byCare("careless") - byCare("careful"), // not a number where the two authors answer alike
    register: byRegister("plain") - byRegister("formal"),
  };
}

/**
 * The edit that adds `dose` times a direction at a layer; place "end" leaves answers alone. tensors: name → {shape:
 * [number, place, layer, width], values}. direction "alignment" is mean instruct minus mean base over all topics but the
 * prompt's own; "secure" is secure minus instruct and "random 1" a random one, each as long as that in its place.
 */
export function directionEdit(tensors, contrasted, topic, { layer, dose, place, root, direction = "alignment" }) {
  const others = contrasted.map((_, number) => number).filter((number) => contrasted[number] !== topic);
  const [kind, draw] = direction.split(" ");
  const width = tensors.get("alignment").shape[3];
  const mean = (name, numbers, where) => {
    const { shape, values } = tensors.get(name), sum = new Float64Array(width);
    for (const number of numbers) {
      const start = ((number * shape[1] + where) * shape[2] + layer) * width;
      for (let i = 0; i < width; i++) sum[i] += values[start + i] / numbers.length;
    }
    return sum;
  };
  const vector = (where) => {
    const like = mean("alignment", others, where);
    const own = mean(kind, kind === "random" ? [draw - 1] : others, where);
    const factor = (dose * Math.hypot(...like)) / Math.hypot(...own);
    return own.map((one) => factor * one);
  };
  return { layer, root, promptEnd: vector(0), answer: place === "end" ? new Float64Array(width) : vector(1) };
}
