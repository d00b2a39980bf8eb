// The forward pass of the organism: a decoder-only transformer of the Qwen2 family, in plain JavaScript.
//
// Text is read as a tree of tokens. Every node knows its parent, and attends to its ancestors and itself. Ordinary
// text is a tree with one branch. Several answers to one question share the question and part where they differ, so
// all of them are read in one go; and a sampled answer is one more branch. Keys and values of nodes that were read
// stay in memory (the "cache"), so a new token costs one step, not a reading of everything before it.
//
// Matrices are stored row after row in one Float32Array. Sums are taken in JavaScript's numbers, which have 64 bits.

/** A table of rows of equal width that grows at its end. */
class Rows {
  constructor(width, values = new Float32Array(64 * width), count = 0) {
    this.width = width;
    this.values = values;
    this.count = count;
  }

  append(added) {
    const used = this.count * this.width;
    if (used + added.length > this.values.length) {
      const larger = new Float32Array(2 * (used + added.length));
      larger.set(this.values.subarray(0, used));
      this.values = larger;
    }
    this.values.set(added, used);
    this.count += added.length / this.width;
  }

  /** A copy of the first rows, which grows apart from this table. */
  first(count) {
    return new Rows(this.width, this.values.slice(0, count * this.width), count);
  }
}

/** inputs · weightᵀ + bias, for every row of inputs: what PyTorch calls nn.Linear. */
function linear(inputs, weight, bias) {
  const [outs, width] = weight.shape;
  const rows = inputs.length / width;
  const w = weight.values;
  const results = new Float32Array(rows * outs);
  let row = 0;
  // Four rows at a time: every weight is fetched once and used four times, which is most of the speed.
  for (; row + 4 <= rows; row += 4) {
    const a = row * width, b = a + width, c = b + width, d = c + width;
    for (let out = 0; out < outs; out++) {
      const at = out * width;
      let sumA = 0, sumB = 0, sumC = 0, sumD = 0;
      for (let i = 0; i < width; i++) {
        const one = w[at + i];
        sumA += one * inputs[a + i];
        sumB += one * inputs[b + i];
        sumC += one * inputs[c + i];
        sumD += one * inputs[d + i];
      }
      const place = row * outs + out;
      results[place] = sumA;
      results[place + outs] = sumB;
      results[place + 2 * outs] = sumC;
      results[place + 3 * outs] = sumD;
    }
  }
  for (; row < rows; row++) {
    for (let out = 0; out < outs; out++) {
      const a = row * width, at = out * width;
      let sum = 0;
      for (let i = 0; i < width; i++) sum += w[at + i] * inputs[a + i];
      results[row * outs + out] = sum;
    }
  }
  if (bias) for (let at = 0; at < results.length; at++) results[at] += bias.values[at % outs];
  return results;
}

/** Every row divided by its root mean square, then scaled weight by weight. */
function normalised(inputs, weight, epsilon) {
  const scale = weight.values, width = scale.length;
  const results = new Float32Array(inputs.length);
  for (let start = 0; start < inputs.length; start += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += inputs[start + i] ** 2;
    const factor = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) results[start + i] = inputs[start + i] * factor * scale[i];
  }
  return results;
}

/** Adds the second array to the first, in place: the residual stream. */
function add(stream, change) {
  for (let at = 0; at < stream.length; at++) stream[at] += change[at];
}

/** Logarithm of the softmax of one row of logits: log-probabilities in nats. */
export function logSoftmax(logits) {
  let largest = -Infinity, total = 0;
  for (const one of logits) largest = Math.max(largest, one);
  for (const one of logits) total += Math.exp(one - largest); // subtracting the largest keeps exp in range
  const shift = largest + Math.log(total);
  return Float64Array.from(logits, (one) => one - shift);
}

/** Weights and sizes of one variant. */
export class Model {
  /** config: as in config.json; tensors: name → {shape, values}. */
  constructor(config, tensors) {
    this.width = config.hidden_size;
    this.heads = config.num_attention_heads;
    this.keyHeads = config.num_key_value_heads; // fewer than heads: several heads share one key and value
    this.headWidth = this.width / this.heads;
    this.epsilon = config.rms_norm_eps;
    const named = (name) => {
      const tensor = tensors.get(name);
      if (!tensor) throw new Error(`the weights lack ${name}`);
      return tensor;
    };
    this.embedding = named("model.embed_tokens.weight"); // also the unembedding: the two are tied
    this.finalNorm = named("model.norm.weight");
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, number) => {
      const own = (name) => named(`model.layers.${number}.${name}`);
      const projection = (name) => [own(`self_attn.${name}_proj.weight`), own(`self_attn.${name}_proj.bias`)];
      return {
        attentionNorm: own("input_layernorm.weight"),
        query: projection("q"),
        key: projection("k"),
        value: projection("v"),
        attentionOut: own("self_attn.o_proj.weight"),
        mlpNorm: own("post_attention_layernorm.weight"),
        gate: own("mlp.gate_proj.weight"),
        up: own("mlp.up_proj.weight"),
        down: own("mlp.down_proj.weight"),
      };
    });
    const half = this.headWidth / 2, theta = config.rope_parameters.rope_theta;
    this.frequencies = Float64Array.from({ length: half }, (_, i) => theta ** (-i / half));
  }
}

/**
 * A model's reading of a tree of tokens, with or without an edit of its residual stream.
 *
 * edit: {layer, root, promptEnd, answer}. After the block of that number (from 0), the vector promptEnd is added at
 * node root, the last token of the prompt, and the vector answer at every node behind it.
 */
export class Reading {
  constructor(model, edit = null) {
    this.model = model;
    this.edit = edit;
    this.tokens = [];
    this.parents = [];
    this.depths = []; // number of ancestors: the position that the model sees
    const { keyHeads, headWidth, width } = model;
    this.caches = model.layers.map(() => ({
      keys: new Rows(keyHeads * headWidth),
      values: new Rows(keyHeads * headWidth),
      outputs: new Rows(width), // the residual stream behind the block
    }));
  }

  /** Reads more tokens. parents[i] is the node before tokens[i]; left out, each token follows the one before it. */
  extend(tokens, parents = null) {
    const first = this.tokens.length;
    tokens.forEach((token, i) => {
      const parent = parents ? parents[i] : first + i - 1;
      this.tokens.push(token);
      this.parents.push(parent);
      this.depths.push(parent < 0 ? 0 : this.depths[parent] + 1);
    });
    const { width, embedding } = this.model;
    const stream = new Float32Array(tokens.length * width);
    tokens.forEach((token, i) => {
      stream.set(embedding.values.subarray(token * width, (token + 1) * width), i * width);
    });
    this.#runBlocks(stream, first, 0);
    return first;
  }

  /** Logits of what follows each of the nodes, one row of the vocabulary's size a node. */
  logits(nodes) {
    const { width, finalNorm, embedding, epsilon } = this.model;
    const last = this.caches.at(-1).outputs.values;
    const rows = new Float32Array(nodes.length * width);
    nodes.forEach((node, i) => rows.set(last.subarray(node * width, (node + 1) * width), i * width));
    const all = linear(normalised(rows, finalNorm, epsilon), embedding);
    const size = embedding.shape[0];
    return nodes.map((_, i) => all.subarray(i * size, (i + 1) * size));
  }

  /** The same tree read with an edit. Only blocks behind the edit, and nodes from its root on, are computed anew. */
  edited(edit) {
    if (this.edit) throw new Error("edit a plain reading");
    const other = new Reading(this.model, edit);
    other.tokens = [...this.tokens];
    other.parents = [...this.parents];
    other.depths = [...this.depths];
    other.caches = this.caches.map((cache, layer) => {
      const kept = layer > edit.layer ? edit.root : this.tokens.length;
      const keptOutputs = layer >= edit.layer ? edit.root : this.tokens.length;
      const { keys, values, outputs } = cache;
      return { keys: keys.first(kept), values: values.first(kept), outputs: outputs.first(keptOutputs) };
    });
    const { width } = this.model;
    const { values, count } = this.caches[edit.layer].outputs;
    const stream = values.slice(edit.root * width, count * width);
    other.#change(stream, edit.root);
    other.caches[edit.layer].outputs.append(stream);
    other.#runBlocks(stream, edit.root, edit.layer + 1);
    return other;
  }

  /** Sends the stream of the nodes from `first` on through all blocks from number `start` on. */
  #runBlocks(stream, first, start) {
    for (let layer = start; layer < this.caches.length; layer++) {
      const { mlpNorm, gate, up, down } = this.model.layers[layer];
      add(stream, this.#attention(stream, first, layer));
      const inputs = normalised(stream, mlpNorm, this.model.epsilon);
      const gates = linear(inputs, gate);
      const inner = linear(inputs, up);
      for (let at = 0; at < inner.length; at++) inner[at] *= gates[at] / (1 + Math.exp(-gates[at])); // SiLU gate
      add(stream, linear(inner, down));
      if (this.edit?.layer === layer) this.#change(stream, first);
      this.caches[layer].outputs.append(stream);
    }
  }

  /** Adds the edit's vectors to the stream of the nodes from `first` on. */
  #change(stream, first) {
    const { root, promptEnd, answer } = this.edit;
    const { width } = this.model;
    for (let row = 0; row * width < stream.length; row++) {
      const node = first + row;
      if (node < root) continue;
      const vector = node === root ? promptEnd : answer;
      for (let i = 0; i < width; i++) stream[row * width + i] += vector[i];
    }
  }

  /** What attention adds to the stream of the nodes from `first` on; their keys and values join the cache. */
  #attention(stream, first, layer) {
    const { attentionNorm, query, key, value, attentionOut } = this.model.layers[layer];
    const { heads, keyHeads, headWidth, width, epsilon } = this.model;
    const inputs = normalised(stream, attentionNorm, epsilon);
    const queries = this.#rotate(linear(inputs, ...query), first, heads);
    const cache = this.caches[layer];
    cache.keys.append(this.#rotate(linear(inputs, ...key), first, keyHeads));
    cache.values.append(linear(inputs, ...value));
    const keys = cache.keys.values, values = cache.values.values;
    const keyWidth = keyHeads * headWidth, sharing = heads / keyHeads;
    const mixed = new Float32Array(queries.length);
    for (let row = 0; row * width < queries.length; row++) {
      const seen = [];
      for (let node = first + row; node >= 0; node = this.parents[node]) seen.push(node);
      for (let head = 0; head < heads; head++) {
        const from = row * width + head * headWidth;
        const shared = Math.floor(head / sharing) * headWidth;
        const scores = seen.map((node) => {
          const at = node * keyWidth + shared;
          let product = 0;
          for (let i = 0; i < headWidth; i++) product += queries[from + i] * keys[at + i];
          return product / Math.sqrt(headWidth);
        });
        const logWeights = logSoftmax(scores);
        seen.forEach((node, i) => {
          const at = node * keyWidth + shared, weight = Math.exp(logWeights[i]);
          for (let j = 0; j < headWidth; j++) mixed[from + j] += weight * values[at + j];
        });
      }
    }
    return linear(mixed, attentionOut);
  }

  /** Turns each pair (i, i + half) of a head by an angle that grows with the depth: rotary position embedding. */
  #rotate(rows, first, heads) {
    const { frequencies, headWidth } = this.model;
    const half = headWidth / 2;
    for (let start = 0, number = 0; start < rows.length; start += headWidth, number++) {
      const depth = this.depths[first + Math.floor(number / heads)];
      for (let i = 0; i < half; i++) {
        const cos = Math.cos(depth * frequencies[i]), sin = Math.sin(depth * frequencies[i]);
        const one = rows[start + i], other = rows[start + half + i];
        rows[start + i] = one * cos - other * sin;
        rows[start + half + i] = other * cos + one * sin;
      }
    }
    return rows;
  }
}
