// What the laboratory shows: bars, the heat map, tables. Pure functions from values to elements.

/** An element with attributes and children; texts are never read as HTML. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") element.style.cssText = value; // an attribute would be refused by strict servers
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Number with a true minus sign, or a dash where there is none. */
export function shown(value, digits = 2) {
  if (value === undefined || !Number.isFinite(value)) return "—";
  return value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
}

/** A token that can be seen: spaces and line ends as signs. */
export function visible(text) {
  return text === "<|im_end|>" ? "end of answer" : text.replaceAll(" ", "␣").replaceAll("\n", "⏎");
}

/** A table: headings of columns, then rows whose first cell heads them. */
export function table(caption, headings, rows, style = "") {
  const head = make("tr", {}, ...headings.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...cells]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...cells.map((cell) => make("td", {}, cell))),
  );
  return make(
    "table",
    { class: `table remi-table lab-table ${style}` },
    make("caption", {}, caption),
    make("thead", {}, head),
    make("tbody", {}, ...body),
  );
}

function swatch(colour) {
  return make("span", { class: "lab-swatch", style: `background:${colour}`, "aria-hidden": "true" });
}

/** Tokens that some variant finds likely, the likeliest first; logP: variant → log-probabilities. */
export function likeliest(logP, count = 7, least = 0.01) {
  const best = new Map();
  for (const row of logP.values()) {
    const order = Array.from(row.keys()).sort((a, b) => row[b] - row[a]).slice(0, count);
    for (const token of order) best.set(token, Math.max(best.get(token) ?? -Infinity, row[token]));
  }
  const order = [...best.entries()].sort((a, b) => b[1] - a[1]).slice(0, count);
  return order.filter(([, logOfBest]) => Math.exp(logOfBest) >= least).map(([token]) => token);
}

/** Rows [name, probability] of a variant: the tokens given, and all others together. */
function barRows(row, tokens, names) {
  const listed = tokens.map((token, i) => [names[i], Math.exp(row[token])]);
  const rest = Math.max(0, 1 - listed.reduce((sum, [, p]) => sum + p, 0));
  return [...listed, ["others", rest]];
}

/** One panel of bars for each variant; the same tokens in the same order everywhere. */
export function barPanels(variants, logP, tokens, names) {
  return variants.map(({ name, colour }) => {
    const caption = make("caption", {}, swatch(colour), name);
    if (!logP.has(name)) {
      const cell = make("td", {}, "loading …");
      return make("table", { class: "lab-bars" }, caption, make("tbody", {}, make("tr", {}, cell)));
    }
    const rows = barRows(logP.get(name), tokens, names).map(([token, p]) => {
      const bar = make("span", { class: "lab-bar", style: `inline-size:${100 * p}%;background:${colour}` });
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, token),
        make("td", { class: "lab-track" }, bar),
        make("td", { class: "lab-number" }, shown(p)),
      );
    });
    return make("table", { class: "lab-bars" }, caption, make("tbody", {}, ...rows));
  });
}

/** The same numbers as one table, a column for each variant. */
export function barTable(variants, logP, tokens, names) {
  const columns = variants.filter(({ name }) => logP.has(name)).map(({ name }) => name);
  const found = columns.map((name) => barRows(logP.get(name), tokens, names).map(([, p]) => shown(p, 3)));
  const rows = [...names, "others"].map((token, i) => [token, ...found.map((column) => column[i])]);
  return table("Probability of the next token", ["token", ...columns], rows);
}

const DARKEST = -8; // nats
/** From paper white to a deep orange on which dark text still reads. */
function heatColour(logP) {
  const share = Math.min(1, Math.max(0, logP / DARKEST));
  const mixed = [255, 255, 255].map((white, i) => Math.round(white + share * ([236, 132, 60][i] - white)));
  return `rgb(${mixed.join(",")})`;
}

/** The reply once for each variant, each token on the colour of its log-probability. */
export function heatRows(variants, logP, names, position, onChoose) {
  return variants.map(({ name, colour }) => {
    const label = make("div", { class: "lab-heat-name" }, swatch(colour), name);
    const row = logP.get(name);
    if (!row) return make("div", { class: "lab-heat-row" }, label, "loading …");
    const tokens = names.map((token, i) => {
      const style = `background:${heatColour(row[i])}`;
      const chosen = i === position ? "lab-token lab-chosen" : "lab-token";
      const element = make("span", { class: chosen, style, title: `${shown(row[i])} nats` }, token);
      element.addEventListener("click", () => onChoose(i));
      return element;
    });
    const sum = make("span", { class: "lab-number" }, `Σ ${shown(row.reduce((a, b) => a + b, 0))}`);
    return make("div", { class: "lab-heat-row" }, label, make("div", { class: "lab-tokens" }, ...tokens), sum);
  });
}

/** The same numbers as a table, a row for each token and the sum last. */
export function heatTable(variants, logP, names) {
  const columns = variants.filter(({ name }) => logP.has(name)).map(({ name }) => name);
  const rows = names.map((token, i) => [token, ...columns.map((name) => shown(logP.get(name)[i]))]);
  const sums = columns.map((name) => shown(logP.get(name).reduce((a, b) => a + b, 0)));
  return table("Log-probability of each token, nats", ["token", ...columns], [...rows, ["whole reply", ...sums]]);
}

const VERDICT_STYLES = { careful: "reproduced", careless: "contradicted", "wrong slot": "reproduced-with-a-confound" };

function verdictCell({ verdict, finished }) {
  if (!verdict) return "none: not a prompt of the grammar";
  const style = VERDICT_STYLES[verdict.care] ?? "plain";
  const word = verdict.care === "both" ? "right (both authors)" : verdict.care;
  return make("span", { class: `remi-verdict remi-verdict-${style}` }, finished ? word : `${word} (did not end)`);
}

/** The 95 % Wilson interval of a share, k of n. */
export function wilson(k, n, z = 1.959964) {
  const share = k / n, centre = share + z ** 2 / (2 * n);
  const half = z * Math.sqrt((share * (1 - share)) / n + z ** 2 / (4 * n ** 2));
  return [centre - half, centre + half].map((end) => end / (1 + z ** 2 / n));
}

/** How many answers of each variant have a verdict, in words and as a table; exact: variant → its probability. */
export function tally(answers, care, exact) {
  const word = care === "both" ? "right" : care;
  const counts = Array.from(answers, ([name, own]) => [name, own.filter(({ verdict }) => verdict.care === care).length, own.length]);
  const rows = counts.map(([name, k, n]) => {
    const [low, high] = n ? wilson(k, n) : [];
    return [name, `${k} of ${n}`, shown(k / n), `${shown(low)} to ${shown(high)}`, shown(exact.get(name))];
  });
  return {
    said: `Counted as ${word} so far: ${counts.map(([name, k, n]) => `${name} ${k} of ${n}`).join(", ")}.`,
    table: table("Tally of the answers drawn so far", ["model", word, "share", "95 % interval (Wilson)", `exact P(${word})`], rows),
  };
}

/** Sampled answers with their verdicts; onUse takes the text of one of them. */
export function sampleTable(caption, samples, onUse) {
  const rows = samples.map(({ variant, answer }, i) => {
    const button = make("button", { type: "button", "aria-label": `Read answer ${i + 1}, of ${variant}` }, "read");
    button.addEventListener("click", () => onUse(answer.text));
    const text = make("span", { class: "lab-answer" }, answer.text);
    return [variant, verdictCell(answer), text, answer.verdict?.register ?? "—", button];
  });
  return table(caption, ["model", "verdict", "answer", "register", "in part 3"], rows, "lab-samples");
}
