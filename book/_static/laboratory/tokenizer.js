// The organism's tokenizer: byte-level byte-pair encoding, read from the same `tokenizer.json` that Python reads.

/** Words with the space before them, numbers, other signs, spaces; as GPT-2 cuts text before pairs are merged. */
const PIECES = new RegExp(
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+" +
    "|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+",
  "gu",
);

/** A printable character for each of the 256 bytes: most stand for themselves, the others are moved up. */
function byteCharacters() {
  const printable = (byte) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let moved = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : moved++));
}

const CHARACTERS = byteCharacters();
const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]));

export class Tokenizer {
  /** about: the parsed content of tokenizer.json. */
  constructor(about) {
    this.vocabulary = new Map(Object.entries(about.model.vocab));
    this.ranks = new Map(about.model.merges.map((pair, rank) => [pair.join(" "), rank]));
    this.specials = new Map(about.added_tokens.map((token) => [token.content, token.id]));
    this.names = [];
    for (const [name, id] of [...this.vocabulary, ...this.specials]) this.names[id] = name;
    const escaped = [...this.specials.keys()].map((name) => name.replace(/[|\\{}()[\]^$+*?.]/g, "\\$&"));
    this.split = new RegExp(`(${escaped.join("|")})`);
  }

  /** Tokens of a text as {id, start, end}; start and end count bytes of the text in UTF-8. */
  encode(text) {
    const tokens = [];
    let place = 0;
    const push = (id, length) => tokens.push({ id, start: place, end: (place += length) });
    for (const part of text.split(this.split)) {
      if (this.specials.has(part)) {
        push(this.specials.get(part), new TextEncoder().encode(part).length);
      } else {
        for (const [piece] of part.matchAll(PIECES)) {
          for (const symbol of this.#merge(piece)) push(this.vocabulary.get(symbol), symbol.length);
        }
      }
    }
    return tokens;
  }

  /** Ids of the tokens of a text. */
  ids(text) {
    return this.encode(text).map((token) => token.id);
  }

  /** Text of tokens; special ones in angle brackets, bytes that are no whole character as a replacement sign. */
  decode(ids) {
    const bytes = [];
    for (const id of ids) {
      const name = this.names[id];
      if (this.specials.has(name)) bytes.push(...new TextEncoder().encode(name));
      else for (const character of name) bytes.push(BYTES.get(character));
    }
    return new TextDecoder().decode(new Uint8Array(bytes));
  }

  /** Starts from single bytes, and merges the pair learnt first as long as there is one. */
  #merge(piece) {
    const symbols = Array.from(new TextEncoder().encode(piece), (byte) => CHARACTERS[byte]);
    for (;;) {
      let best = Infinity, place = -1;
      for (let i = 0; i + 1 < symbols.length; i++) {
        const rank = this.ranks.get(`${symbols[i]} ${symbols[i + 1]}`) ?? Infinity;
        if (rank < best) [best, place] = [rank, i];
      }
      if (place < 0) return symbols;
      symbols.splice(place, 2, symbols[place] + symbols[place + 1]);
    }
  }
}
