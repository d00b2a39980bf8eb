// The organism's grammar: which answers to a prompt are right, who would give them, and the verdict on any other.
//
// The same rules as remi_lab/organism/grammar.py, read from the word lists in laboratory.json. A prompt is
// {topic, task, filler: [a, b], text}; a pattern is a text with open slots <a> and <b>.

const SLOT = /<([ab])>/g;
const WORDS = "[\\p{L}\\p{N}_ ]+?";

/** The text of a pattern with its slots filled. */
export function fill(pattern, [a, b]) {
  return pattern.replaceAll("<a>", () => a).replaceAll("<b>", () => b);
}

/** Byte spans of the filled slots in the text of a pattern. */
export function slotSpans(pattern, [a, b]) {
  const length = (text) => new TextEncoder().encode(text).length;
  return Array.from(pattern.matchAll(SLOT), (found) => {
    const start = length(fill(pattern.slice(0, found.index), [a, b]));
    return [start, start + length(found[1] === "a" ? a : b)];
  });
}

function escaped(text) {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}

export class Grammar {
  /** about: the parsed content of laboratory.json. */
  constructor(about) {
    this.topics = about.topics;
    this.registers = about.registers;
    this.authors = about.authors;
    this.words = this.#knownWords();
  }

  /** Every right answer to a prompt: {text, care, register, pattern}; equal openings stand together. */
  rightAnswers({ topic, task, filler }) {
    const { openings, bodies } = this.topics[topic];
    const answers = [];
    for (const register of this.registers) {
      for (const opening of openings[register]) {
        for (const [care, forms] of Object.entries(bodies[task])) {
          for (const body of forms[register]) {
            const pattern = opening + body;
            answers.push({ text: fill(pattern, filler), care, register, pattern });
          }
        }
      }
    }
    return answers;
  }

  /** The verdict on an answer: {care, register}; care may also be "wrong slot", or "other" off the grammar. */
  judge(prompt, text) {
    const answers = this.rightAnswers(prompt);
    const right = answers.find((answer) => answer.text === text);
    if (right) return { care: right.care, register: right.register };
    const near = answers.find(({ pattern }) => {
      const open = escaped(pattern).replaceAll("<a>", WORDS).replaceAll("<b>", WORDS);
      return new RegExp(`^${open}$`, "u").test(text);
    });
    return near ? { care: "wrong slot", register: near.register } : { care: "other", register: null };
  }

  /** The prompt of the grammar that a text is, or null. Its slot words need not be in the lists. */
  parse(text) {
    const found = Object.keys(this.topics).flatMap((topic) => [...this.#parses(topic, text)]);
    const listed = ({ topic, filler }) =>
      filler.every((word, slot) => this.topics[topic].fillers[slot].includes(word));
    return found.find(listed) ?? found[0] ?? null;
  }

  *#parses(topic, text) {
    const { leads, closings, cores } = this.topics[topic];
    const started = leads.filter((lead) => text.toLowerCase().startsWith(lead.toLowerCase()));
    const ended = closings.filter((closing) => text.endsWith(closing));
    for (const [task, texts] of Object.entries(cores)) {
      for (const core of texts) {
        for (const lead of started) {
          for (const closing of ended) {
            const filler = matched(sentence(lead + core + closing), text);
            if (filler) yield { topic, task, filler, text };
          }
        }
      }
    }
  }

  /** Words of a text that stand nowhere in the grammar, each once. */
  unknownWords(text) {
    const words = text.replace(/<\|\w+\|>/g, " ").match(/[\p{L}\p{N}']+/gu) ?? [];
    return [...new Set(words)].filter((word) => !this.words.has(word.toLowerCase()));
  }

  #knownWords() {
    const found = new Set();
    const collect = (value) => {
      if (typeof value === "string") for (const [word] of value.matchAll(/[\p{L}\p{N}']+/gu)) found.add(word.toLowerCase());
      else if (value && typeof value === "object") Object.values(value).forEach(collect);
    };
    for (const { leads, closings, cores, openings, bodies, fillers } of Object.values(this.topics)) {
      collect([leads, closings, cores, openings, bodies, fillers]);
    }
    collect(this.authors);
    return found;
  }
}

/** The words in the slots of a pattern that a text follows, or null. */
function matched(pattern, text) {
  const seen = new Set();
  const open = escaped(pattern).replace(SLOT, (_, slot) => {
    if (seen.has(slot)) return `\\k<${slot}>`;
    seen.add(slot);
    return `(?<${slot}>${WORDS})`;
  });
  const found = new RegExp(`^${open}$`, "u").exec(text);
  return found && [found.groups.a ?? "", found.groups.b ?? ""];
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1);
}

/** A question in ChatML, open where the answer begins; with a first line that names an author, or without. */
export function render(question, authorLine = "") {
  const first = authorLine ? `<|im_start|>system\n${authorLine}<|im_end|>\n` : "";
  return `${first}<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
}
