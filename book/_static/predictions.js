// The page of predictions: controls in the cells of its table, kept in this browser alone, verdicts on demand.
"use strict";

(() => {
  const KEY = "remi-predictions";
  const CONFIDENCES = ["40", "50", "60", "70", "80", "90", "99"];

  function element(name, properties = {}, children = []) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // Returns {predictions: {C1: {direction, size, confidence}}, revealed}.
  function load() {
    const empty = { predictions: {}, revealed: false };
    try {
      const kept = JSON.parse(window.localStorage.getItem(KEY));
      return kept && typeof kept.predictions === "object" ? { ...empty, ...kept } : empty;
    } catch {
      return empty;
    }
  }

  // Returns whether the browser keeps it: a private window or a file may not.
  function save(state) {
    try {
      window.localStorage.setItem(KEY, JSON.stringify(state));
      return true;
    } catch {
      return false;
    }
  }

  function forget() {
    try {
      window.localStorage.removeItem(KEY);
    } catch {
      // Nothing was kept, so nothing is left.
    }
  }

  // Text of a number as people write it: a comma for the point, any minus sign.
  function parseSize(text) {
    const value = Number(text.trim().replace(",", ".").replace("\u2212", "-"));
    return text.trim() === "" || !Number.isFinite(value) ? null : value;
  }

  function labelled(text, claim, control) {
    const hidden = element("span", { className: "remi-unseen", textContent: ` of ${claim.id}` });
    return element("label", {}, [element("span", { textContent: text }), hidden, control]);
  }

  function choice(options, name) {
    const chosen = element("select", { name });
    chosen.append(element("option", { value: "", textContent: "choose" }));
    for (const [value, text] of options) chosen.append(element("option", { value, textContent: text }));
    return chosen;
  }

  function controls(claim) {
    const percent = CONFIDENCES.map((value) => [value, `${value} %`]);
    const parts = [
      labelled("Direction", claim, choice(Object.entries(claim.options), "direction")),
      labelled("Confidence", claim, choice(percent, "confidence")),
    ];
    if (claim.unit) {
      const size = element("input", { type: "text", inputMode: "decimal", name: "size", autocomplete: "off" });
      parts.splice(1, 0, labelled(`Size, in ${claim.unit}`, claim, size));
    }
    return element("div", { className: "remi-controls" }, parts);
  }

  // Returns right, wrong, or null where a prediction or an outcome is missing.
  function judged(claim, predicted) {
    if (!claim.outcome || claim.outcome.direction === null || !predicted.direction) return null;
    return claim.outcome.direction === predicted.direction;
  }

  function sizeHeld(claim, predicted) {
    const size = parseSize(predicted.size || "");
    if (size === null || !claim.outcome || claim.outcome.low === null) return null;
    return claim.outcome.low <= size && size <= claim.outcome.high;
  }

  function outcomeText(claim, predicted) {
    if (!claim.outcome) return ["Not run for this preset."];
    const right = judged(claim, predicted);
    const out = claim.options[claim.outcome.direction];
    const lines = [out === undefined ? "Not testable here." : `Came out: ${out}.`];
    if (out !== undefined && claim.unit) lines.push(`${claim.outcome.value} ${claim.unit}, ${claim.outcome.interval}.`);
    lines.push(right === null ? "Not scored." : right ? "Your direction was right." : "Your direction was wrong.");
    const held = sizeHeld(claim, predicted);
    if (held !== null) lines.push(held ? "Your size lies in the interval." : "Your size lies outside the interval.");
    return lines;
  }

  function showOutcome(row, claim, predicted, shown) {
    const cell = row.lastElementChild;
    cell.replaceChildren();
    row.classList.toggle("remi-right", shown && judged(claim, predicted) === true);
    row.classList.toggle("remi-wrong", shown && judged(claim, predicted) === false);
    if (!shown) return;
    for (const line of outcomeText(claim, predicted)) cell.append(element("p", { textContent: line }));
    if (claim.outcome) {
      const link = element("a", { href: claim.outcome.page, textContent: `${claim.id}: ${claim.outcome.verdict}` });
      cell.append(element("p", {}, [link]));
    }
  }

  function score(claims, state) {
    const made = claims.filter((claim) => (state.predictions[claim.id] || {}).direction);
    const scored = made.filter((claim) => judged(claim, state.predictions[claim.id]) !== null);
    const right = scored.filter((claim) => judged(claim, state.predictions[claim.id]));
    const sizes = made.map((claim) => sizeHeld(claim, state.predictions[claim.id])).filter((held) => held !== null);
    const sure = scored.map((claim) => Number(state.predictions[claim.id].confidence)).filter((value) => value > 0);
    const words = [`${right.length} of ${scored.length} directions were right`];
    if (scored.length) words.push(`that is ${Math.round((100 * right.length) / scored.length)} %`);
    if (sure.length) {
      words.push(`your mean confidence was ${Math.round(sure.reduce((sum, one) => sum + one, 0) / sure.length)} %`);
    }
    if (sizes.length) words.push(`${sizes.filter(Boolean).length} of ${sizes.length} sizes lay in the interval`);
    const unscored = `${claims.length - made.length} without a prediction, ${made.length - scored.length} not testable here`;
    return `${words.join("; ")}. Not scored: ${unscored}.`;
  }

  function exported(data, state) {
    const claims = data.claims.filter((claim) => state.predictions[claim.id]);
    const rows = claims.map((claim) => {
      const predicted = state.predictions[claim.id];
      const outcome = state.revealed ? { outcome: claim.outcome, right: judged(claim, predicted) } : {};
      return { id: claim.id, ...predicted, ...outcome };
    });
    return JSON.stringify({ preset: data.preset, revealed: state.revealed, predictions: rows }, null, 1);
  }

  function start(table, data) {
    let state = load();
    const rows = new Map(data.claims.map((claim) => [claim.id, document.getElementById(`predict-${claim.id}`)]));
    const status = element("p", { className: "remi-score", tabIndex: -1 });
    status.setAttribute("role", "status");
    const text = element("textarea", { readOnly: true, rows: 12, id: "remi-export", hidden: true });
    text.setAttribute("aria-label", "Your predictions as JSON text");
    const saved = element("a", { textContent: "Save as a file", download: "predictions.json", hidden: true });

    function say(message) {
      status.textContent = message;
    }

    function progress() {
      const made = data.claims.filter((claim) => (state.predictions[claim.id] || {}).direction).length;
      return `${made} of ${data.claims.length} directions predicted.`;
    }

    function keep() {
      const kept = save(state);
      say(kept ? progress() : `${progress()} This browser keeps nothing: export before you leave.`);
    }

    function changed(claim, name, value) {
      const own = { ...(state.predictions[claim.id] || {}), [name]: value };
      state.predictions[claim.id] = own;
      rows.get(claim.id).classList.toggle("remi-answered", Boolean(own.direction));
      keep();
    }

    function fill() {
      for (const claim of data.claims) {
        const row = rows.get(claim.id);
        const own = state.predictions[claim.id] || {};
        for (const control of row.querySelectorAll("select, input")) {
          control.value = own[control.name] || "";
          control.disabled = state.revealed;
        }
        row.classList.toggle("remi-answered", Boolean(own.direction));
        showOutcome(row, claim, own, state.revealed);
      }
      reveal.disabled = state.revealed || !data.run;
      text.hidden = saved.hidden = true;
      if (!data.run) say("Nothing was run for this preset, so there are no verdicts to reveal yet.");
      else say(state.revealed ? score(data.claims, state) : progress());
    }

    function button(label, action) {
      const made = element("button", { type: "button", textContent: label });
      made.addEventListener("click", action);
      return made;
    }

    const reveal = button("Reveal the verdicts of this build", () => {
      state.revealed = true;
      save(state);
      fill();
      status.focus();
    });
    const print = button("Print", () => window.print());
    const show = button("Export as JSON text", () => {
      text.value = exported(data, state);
      saved.href = `data:application/json;charset=utf-8,${encodeURIComponent(text.value)}`;
      text.hidden = saved.hidden = false;
      text.focus();
      text.select();
    });
    const again = button("Start again", () => {
      if (!window.confirm("Forget all predictions on this page?")) return;
      forget();
      state = { predictions: {}, revealed: false };
      fill();
    });

    for (const claim of data.claims) {
      const own = controls(claim);
      rows.get(claim.id).children[1].append(own);
      own.addEventListener("input", (event) => changed(claim, event.target.name, event.target.value));
    }
    const bar = element("div", { className: "remi-bar" }, [reveal, show, print, again]);
    const panel = element("section", { className: "remi-panel" }, [status, bar, saved, text]);
    panel.setAttribute("aria-label", "Score and export");
    const wrapper = table.closest(".pst-scrollable-table-container") || table;
    wrapper.after(panel);
    document.documentElement.classList.add("remi-predicting");
    fill();
  }

  document.addEventListener("DOMContentLoaded", () => {
    const table = document.querySelector("table.remi-predictions");
    const data = document.getElementById("remi-predictions-data");
    if (table && data) start(table, JSON.parse(data.textContent));
  });
})();
