/* The book's own script: tables that sort, download and filter, figures that enlarge, the list that picks a dialogue, and
   results that wait for those who predict first. No page needs it. */
"use strict";

(() => {
  const NUMBER = /^[−-]?\d[\d,]*(\.\d+)?(e[−+-]?\d+)?/;

  /* What a cell says first: in the claim tables the details stand in paragraphs of their own below. */
  function headText(cell) {
    const first = cell.querySelector("p");
    return (first || cell).textContent.trim().replace(/\s+/g, " ");
  }

  function numberOf(text) {
    const found = text.match(NUMBER);
    return found ? Number(found[0].replace(/−/g, "-").replace(/,/g, "")) : null;
  }

  /* Empty cells and dashes come last, whichever way the others are sorted. */
  function isEmpty(text) {
    return text === "" || text === "—" || text === "undefined";
  }

  function ordered(rows, column, direction) {
    const keyed = rows.map((row) => ({ row, text: headText(row.cells[column]) }));
    const numeric = keyed.every(({ text }) => isEmpty(text) || numberOf(text) !== null);
    const compare = (one, two) =>
      numeric ? numberOf(one.text) - numberOf(two.text) : one.text.localeCompare(two.text, "en", { numeric: true });
    const full = keyed.filter(({ text }) => !isEmpty(text));
    const empty = keyed.filter(({ text }) => isEmpty(text));
    full.sort((one, two) => direction * compare(one, two));
    return [...full, ...empty].map(({ row }) => row);
  }

  function makeSortable(table) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    headings.forEach((heading, column) => {
      if (!heading.textContent.trim()) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "remi-sort";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const before = heading.getAttribute("aria-sort");
        headings.forEach((one) => one.removeAttribute("aria-sort"));
        const next = { ascending: "descending", descending: null }[before];
        const state = next === undefined ? "ascending" : next;
        if (state) heading.setAttribute("aria-sort", state);
        const rows = state ? ordered(original, column, state === "ascending" ? 1 : -1) : original;
        body.append(...rows);
      });
    });
  }

  // A spreadsheet would run a text that begins so as a formula; a number with its sign is none.
  function quoted(value) {
    const isFormula = /^[=+\-@\t\r]/.test(value) && !/^[+-]?[\d.,]+(e[+-]?\d+)?$/i.test(value);
    const text = isFormula ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
  }

  function cellText(cell) {
    const parts = [...cell.querySelectorAll("p")].map((part) => part.textContent);
    const texts = parts.length ? parts : [cell.textContent];
    return texts.map((text) => text.trim().replace(/\s+/g, " ")).join("; ");
  }

  /* Lists of texts as a file of comma-separated values, as RFC 4180 has them. The laboratory saves its numbers so too. */
  function saveCsv(rows, name) {
    const text = rows.map((row) => row.map(quoted).join(",") + "\r\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }
  window.remiSaveCsv = saveCsv;

  /* Without the sign that links to the table. */
  function captionOf(table) {
    return table.caption ? table.caption.textContent.replace(/#$/, "").trim() : "";
  }

  function fileName(table, place) {
    const caption = captionOf(table) || `table ${place + 1}`;
    const words = caption.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
    return `${words.slice(0, 60)}.csv`;
  }

  function newButton(text, label, act) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "remi-csv";
    button.textContent = text;
    button.setAttribute("aria-label", label);
    button.addEventListener("click", act);
    return button;
  }

  function makeDownloadable(table, place) {
    const button = newButton("Download as CSV", `Download as CSV: ${captionOf(table) || "this table"}`, () => {
      const rows = [...table.tHead.rows, ...table.tBodies[0].rows];
      saveCsv(rows.map((row) => [...row.cells].map(cellText)), fileName(table, place));
    });
    const box = table.closest(".pst-scrollable-table-container, [role=region]") || table;
    box.after(button);
  }

  function isRegular(table) {
    const spans = table.querySelector("[rowspan]:not([rowspan='1']), [colspan]:not([colspan='1'])");
    return table.tHead && table.tHead.rows.length && table.tBodies.length === 1 && !spans;
  }

  function enhanceTables() {
    const tables = document.querySelectorAll("article table.remi-table:not(.remi-plain), article table.table");
    [...new Set(tables)].filter(isRegular).forEach((table, place) => {
      if (table.tBodies[0].rows.length > 1) makeSortable(table);
      makeDownloadable(table, place);
    });
  }

  function enhanceInspector(inspector) {
    const picker = inspector.querySelector(".remi-pick");
    if (!picker) return;
    const list = picker.querySelector("select");
    const show = () =>
      inspector.querySelectorAll(".dialogue").forEach((one) => {
        one.hidden = one.id !== list.value;
      });
    list.addEventListener("change", show);
    picker.hidden = false;
    show();
  }

  /* Who chose to predict, and has not revealed the verdicts, sees no finding that was not asked for. */
  const PREDICTIONS = "remi-predictions";

  function isPredicting() {
    try {
      const kept = JSON.parse(window.localStorage.getItem(PREDICTIONS));
      return Boolean(kept) && !kept.revealed;
    } catch {
      return false;
    }
  }

  function holdBack() {
    document.querySelectorAll('.remi-buttons a[href$="predictions.html"]').forEach((link) => {
      link.addEventListener("click", () => {
        try {
          if (!window.localStorage.getItem(PREDICTIONS)) {
            window.localStorage.setItem(PREDICTIONS, JSON.stringify({ predictions: {}, revealed: false }));
          }
        } catch {
          // A browser that keeps nothing shows everything.
        }
      });
    });
    const told = [...document.querySelectorAll(".remi-lead, .remi-answer, .remi-findings")];
    if (!told.length || !isPredicting()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "You chose to predict first. Show what came out";
    button.className = "remi-show";
    button.addEventListener("click", () => {
      told.forEach((one) => { one.hidden = false; });
      button.remove();
    });
    told[0].before(button);
    told.forEach((one) => { one.hidden = true; });
  }

  /* What the ledger filters by: name in the address → what a row says of it. */
  const FILTERS = {
    verdict: (row) => row.querySelector(".remi-verdict").textContent,
    section: (row) => row.cells[0].querySelector(".remi-detail").textContent,
  };

  function picker(bar, name, values, first) {
    const label = document.createElement("label"), list = document.createElement("select");
    label.append(`${name[0].toUpperCase()}${name.slice(1)} `, list);
    list.name = name;
    if (first) list.add(new Option(first, ""));
    values.forEach(([text, value]) => list.add(new Option(text, value)));
    bar.append(label);
    return list;
  }

  /* Rows of the ledger by verdict and section; the state is in the address, so that it can be sent and gone back to. */
  function enhanceLedger(tally) {
    const table = document.querySelector("table.remi-claims");
    const rows = [...table.tBodies[0].rows], bar = document.createElement("form");
    bar.className = "remi-filter";
    bar.setAttribute("aria-label", "Filter the rows");
    const state = new URLSearchParams(location.search), lists = {};
    for (const [name, of] of Object.entries(FILTERS)) {
      const counts = new Map();
      rows.forEach((row) => counts.set(of(row), (counts.get(of(row)) || 0) + 1));
      const values = [...counts].map(([word, count]) => [`${word} (${count})`, word]);
      lists[name] = picker(bar, name, values, "all");
      lists[name].value = counts.has(state.get(name)) ? state.get(name) : "";
    }
    const said = document.createElement("p");
    said.setAttribute("role", "status");
    const show = () => {
      rows.forEach((row) => {
        row.hidden = Object.entries(lists).some(([name, list]) => list.value && list.value !== FILTERS[name](row));
        const card = document.getElementById(row.querySelector("strong").textContent);
        if (card) card.closest("details").hidden = row.hidden;
      });
      said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows shown`;
      Object.entries(lists).forEach(([name, list]) => (list.value ? state.set(name, list.value) : state.delete(name)));
      history.replaceState(null, "", `${location.pathname}${state.size ? `?${state}` : ""}${location.hash}`);
    };
    // Other presets are books of their own, to which the switch above leads; the filter goes along.
    const presets = [...document.querySelectorAll(".remi-switch a")].slice(1);
    if (presets.length) {
      const list = picker(bar, "preset", presets.map((link) => [link.textContent, link.href]));
      list.value = (presets.find((link) => link.hasAttribute("aria-current")) || presets[0]).href;
      list.addEventListener("change", () => location.assign(list.value + location.search));
    }
    bar.addEventListener("change", show);
    bar.addEventListener("submit", (event) => event.preventDefault());
    bar.append(said);
    tally.after(bar);
    show();
  }

  /* The card that the address names opens, also in browsers that leave its fold closed. */
  function openCard() {
    const card = document.querySelector(".remi-card :target"), folded = card && card.closest("details");
    if (!folded) return;
    folded.open = true;
    folded.hidden = false;
    folded.scrollIntoView();
  }

  /* A figure in a window of its own, wider than a phone; Escape closes it. */
  function enlarge(image) {
    const box = document.createElement("dialog"), inside = document.createElement("div");
    box.className = "remi-enlarged";
    box.setAttribute("aria-label", "Figure, enlarged");
    inside.tabIndex = 0;
    inside.append(image.cloneNode());
    box.append(newButton("Close", "Close", () => box.close()), inside);
    box.addEventListener("click", (event) => event.target === box && box.close());
    box.addEventListener("close", () => box.remove());
    document.body.append(box);
    box.showModal();
  }

  function enhanceFigure(image) {
    image.after(newButton("Enlarge", `Enlarge: ${image.alt.slice(0, 80)}`, () => enlarge(image)));
    image.addEventListener("click", () => enlarge(image));
  }

  function start() {
    enhanceTables();
    holdBack();
    document.querySelectorAll(".remi-tally").forEach(enhanceLedger);
    document.querySelectorAll("article figure.remi-figure img").forEach(enhanceFigure);
    window.addEventListener("hashchange", openCard);
    openCard();
    document.querySelectorAll(".remi-inspector").forEach(enhanceInspector);
  }

  /* On paper nothing can be opened: all but code and passports, which the style hides, is open while it prints. */
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("article details:not([open]):not(.remi-passport)")];
    opened.forEach((one) => { one.open = true; });
  });
  window.addEventListener("afterprint", () => {
    opened.forEach((one) => { one.open = false; });
  });

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
