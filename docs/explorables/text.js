// The words of every explorable figure: sentences in the language of the page, and the text that says what is drawn.
"use strict";

/* A tagged template: say`n = ${n} episodes` is the sentence in the language of the page. The table
 * NAME.zh.json has it under the key "n = {0} episodes"; without a table, the sentence is English. */
function say(parts, ...numbers) {
  const key = parts.reduce((sentence, part, i) => `${sentence}{${i - 1}}${part}`);
  return (explorables.words[key] ?? key).replace(/\{(\d+)\}/g, (_, i) => numbers[i]);
}

// Sentences as one text; a space between two of them is not usual in Chinese.
function joined(...sentences) {
  return sentences.filter(Boolean).reduce((text, next) => text + (/[。？！]$/.test(text) ? "" : " ") + next);
}

// The text is shown immediately and is never lower than before, so that the page below does not move.
// After half a second without a change, its copy in the live region is announced, but not the first text.
function makeText(figure) {
  const [text, spoken] = figure.querySelectorAll(".explorable-text, .explorable-spoken");
  let timer;
  return (words) => {
    if (words === undefined) text.style.minHeight = ""; // the width has changed
    else {
      if (text.textContent) {
        clearTimeout(timer);
        timer = setTimeout(() => { spoken.textContent = words; }, 500);
      }
      text.textContent = words;
    }
    text.style.minHeight = `${text.offsetHeight}px`;
  };
}
