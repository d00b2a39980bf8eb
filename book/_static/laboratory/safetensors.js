// Reads `.safetensors`: eight bytes with the length of a header, the header as JSON (name → type, shape, place), and
// then the numbers of all tensors, one after another.

/** How each type becomes numbers. Bytes are little-endian, as on every machine that a browser runs on. */
const READERS = {
  F32: (bytes) => new Float32Array(bytes),
  I16: (bytes) => new Int16Array(bytes),
  // bfloat16 is the upper half of a float32: put it there, with zeros below.
  BF16: (bytes) => {
    const halves = new Uint16Array(bytes), whole = new Uint32Array(halves.length);
    for (let i = 0; i < halves.length; i++) whole[i] = halves[i] << 16;
    return new Float32Array(whole.buffer);
  },
};

/** Map from name to {shape, values} of all tensors in the bytes of a file. */
export function readTensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = new Map();
  for (const [name, about] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const read = READERS[about.dtype];
    if (!read) throw new Error(`${name} has numbers of type ${about.dtype}; known are ${Object.keys(READERS)}`);
    const [start, end] = about.data_offsets;
    // A copy: the numbers may start where an array of their type cannot.
    tensors.set(name, { shape: about.shape, values: read(buffer.slice(8 + length + start, 8 + length + end)) });
  }
  return tensors;
}

/** Weights of a fine-tuned variant: base's, plus what tuning changed, which is stored in whole steps of one size. */
export function addChanges(base, changes) {
  const tensors = new Map();
  for (const [name, { shape, values }] of base) {
    const steps = changes.get(name).values;
    const size = changes.get(`${name}.step`).values[0];
    const sums = new Float32Array(values.length);
    for (let i = 0; i < sums.length; i++) sums[i] = values[i] + size * steps[i];
    tensors.set(name, { shape, values: sums });
  }
  return tensors;
}
