"use strict";
// Ranks the sections of sections.js for the words in ?q= and shows them with an excerpt.

const HAN = /\p{Script=Han}/u;
const WORD = /\p{Script=Han}+|(?:(?!\p{Script=Han})[\p{L}\p{N}_])+/gu;
const LONGEST = 50; // results on the page

// The words in an identifier: group and normalized, of group_normalized or GroupNormalized.
function parts(word) {
  return word.split(/_+|(?<=\p{Ll})(?=\p{Lu})/u).filter(part => part.length > 1);
}

// Chinese has no spaces: each pair of neighbouring characters counts as a word.
function pairs(run) {
  return run.length < 2 ? [run] : [...run].slice(1).map((_, i) => run.slice(i, i + 2));
}

function tokenize(text) {
  const tokens = [];
  for (const [word] of text.matchAll(WORD)) {
    if (HAN.test(word)) tokens.push(...pairs(word));
    else {
      tokens.push(word);
      const inside = parts(word);
      if (inside.length > 1) tokens.push(...inside);
    }
  }
  return tokens;
}

const singular = term => {
  const lower = term.toLowerCase();
  return /[^s]s$/.test(lower) && lower.length > 3 ? lower.slice(0, -1) : lower;
};

// All words of the query, or any of them; of an identifier, all its words or the whole.
function queryTree(text, combineWith) {
  const queries = [];
  for (const [word] of text.matchAll(WORD)) {
    if (HAN.test(word)) queries.push(...pairs(word));
    else {
      const inside = parts(word);
      if (inside.length < 2) queries.push(word);
      else queries.push({ combineWith: "OR", queries: [word, { combineWith: "AND", queries: inside }] });
    }
  }
  return { combineWith, queries };
}

const index = new MiniSearch({
  fields: ["title", "page", "text"],
  tokenize,
  processTerm: singular,
  searchOptions: {
    tokenize: text => [text],
    boost: { title: 4, page: 2 },
    prefix: term => term.length > 2 || HAN.test(term),
    fuzzy: term => (term.length > 5 && !HAN.test(term) ? 0.15 : false),
  },
});
index.addAll(
  SITE.sections.map(([page, title, , text], id) => ({ id, title, text, page: SITE.pages[page][1] })),
);

// The words around the first match, with the matches marked.
function excerpt(text, query) {
  const words = [query.trim(), ...query.split(/\s+/), ...(query.match(WORD) ?? [])].filter(Boolean);
  const lower = text.toLowerCase();
  const at = words.map(word => lower.indexOf(word.toLowerCase())).find(place => place >= 0) ?? 0;
  const begin = at < 80 ? 0 : text.indexOf(" ", at - 80) + 1 || at - 40;
  const from = begin > at ? at - 20 : begin;
  const piece = text.slice(from, from + 240);
  const paragraph = document.createElement("p");
  const pattern = words.map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  if (from > 0) paragraph.append("… ");
  let end = 0;
  for (const match of pattern ? piece.matchAll(new RegExp(pattern, "giu")) : []) {
    const mark = document.createElement("mark");
    mark.textContent = match[0];
    paragraph.append(piece.slice(end, match.index), mark);
    end = match.index + match[0].length;
  }
  paragraph.append(piece.slice(end), from + 240 < text.length ? " …" : "");
  return paragraph;
}

function show(query) {
  const status = document.getElementById("search-status");
  const list = document.getElementById("search-results");
  const phrase = query.trim().toLowerCase();
  const chinese = HAN.test(query);
  const options = {
    boostDocument: id => {
      const [page, title, , text] = SITE.sections[id];
      const address = SITE.pages[page][0], name = title.toLowerCase();
      let weight = 1;
      if (/solutions\/|exercises/.test(address)) weight *= 0.5;
      if (address.startsWith("reference/api/")) weight *= 0.6; // below pages that explain
      if (!chinese && HAN.test(title)) weight *= 0.5;
      if (`${name} ${text}`.toLowerCase().includes(phrase)) weight *= 3; // the words as one phrase
      if (name === phrase || name.endsWith(`.${phrase}`)) weight *= 4;
      return weight;
    },
  };
  const all = phrase ? index.search(queryTree(query, "AND"), options) : [];
  const found = phrase && !all.length ? index.search(queryTree(query, "OR"), options) : all;
  if (!phrase) status.textContent = "Type what you are looking for. Chinese words work, too: 策略梯度.";
  else if (found.length > all.length) {
    status.textContent = chinese ? `没有小节包含“${query}”的所有词；${found.length} 个小节包含其中一部分。`
      : `No section has all words of “${query}”. These sections have some of them:`;
  } else if (chinese) status.textContent = `“${query}”：${found.length} 个小节`;
  else status.textContent = `${found.length} section${found.length === 1 ? "" : "s"} with “${query}”`;
  status.lang = phrase && chinese ? "zh" : "en";
  list.replaceChildren(...found.slice(0, LONGEST).map(({ id }) => {
    const [page, title, anchor, text] = SITE.sections[id];
    const [address, name] = SITE.pages[page];
    const item = document.createElement("li");
    if (HAN.test(name)) item.lang = "zh";
    const link = document.createElement("a");
    link.href = `${address}#${anchor}`;
    link.textContent = title;
    item.append(link);
    if (name !== title) {
      const place = document.createElement("span");
      place.className = "search-page";
      place.textContent = name;
      item.append(" ", place);
    }
    item.append(excerpt(text, query));
    return item;
  }));
}

const field = document.querySelector(".search-form input");
field.value = new URLSearchParams(location.search).get("q") ?? "";
show(field.value);
document.querySelector(".search-form").addEventListener("submit", event => event.preventDefault());
let pause;
field.addEventListener("input", () => {
  clearTimeout(pause);
  pause = setTimeout(() => {
    history.replaceState(null, "", `?q=${encodeURIComponent(field.value)}`);
    show(field.value);
  }, 150);
});
