// The frame of every explorable figure: controls, a canvas, and a sentence that says what is drawn.
"use strict";

const explorables = { definitions: {}, data: {} };

/* Registers a definition and mounts it in <figure id="explorable-NAME">:
 *   name      the file's name
 *   controls  [{name, label, min, max, step, value}] a slider; with `logarithmic: true` the slider is
 *             the exponent of ten, and `whole: true` rounds its power;
 *             {name, label, options: [[value, label], ...], value} is a list to choose from;
 *             `options` may be a function of the data, and with `resets: NAME` the list of this name
 *             returns to its first entry;
 *             {name, label, press(state), key: "ArrowLeft"} is a button
 *   compute   (values, data) -> numbers, without page or clock: the tests compare it with minirl
 *   draw      (pen, numbers, values, state)
 *   describe  (numbers, values) -> the text alternative
 *   height    (width) -> height of the canvas in pixels, if it is not min(0.62 width, 380)
 *   advance   (state, seconds, numbers, values), if the figure moves; `state` begins as {} */
function explorable(definition) {
  explorables.definitions[definition.name] = definition;
  if (typeof document !== "undefined") mountExplorable(definition);
}

function mountExplorable({ name, controls, compute, draw, describe, advance, height }) {
  const figure = document.getElementById(`explorable-${name}`);
  const canvas = figure.querySelector("canvas");
  const text = figure.querySelector(".explorable-text");
  const values = {};
  const state = {};
  let numbers = {};

  const redraw = () => draw(makePen(canvas, figure, height), numbers, values, state);
  const update = () => {
    numbers = compute(values, explorables.data[name]);
    figure.numbers = numbers; // the tests in a browser read these two
    figure.values = values;
    text.textContent = describe(numbers, values);
    redraw();
  };
  for (const control of controls) {
    if (typeof control.options === "function") control.options = control.options(explorables.data[name]);
    figure.querySelector(".explorable-controls").append(makeControl(control, values, update, state));
  }
  listenToKeys(figure, canvas.parentElement, controls.filter(({ key }) => key), state);
  update();
  new ResizeObserver(redraw).observe(canvas.parentElement);
  new MutationObserver(redraw).observe(document.body, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  if (advance) animate(figure, (seconds) => { advance(state, seconds, numbers, values); redraw(); });
}

function makeControl(control, values, update, state) {
  if (control.press) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.textContent = control.label;
    button.addEventListener("click", () => { control.press(state); update(); });
    return button;
  }
  const label = document.createElement("label");
  const input = document.createElement(control.options ? "select" : "input");
  const shown = document.createElement("output");
  input.name = control.name;
  const read = () => {
    const value = Number(input.value);
    values[control.name] = control.options ? input.value : control.logarithmic ? 10 ** value : value;
    if (control.whole) values[control.name] = Math.round(values[control.name]);
    if (!control.options) {
      shown.textContent = String(Number(values[control.name].toPrecision(3)));
      input.setAttribute("aria-valuetext", shown.textContent);
    }
  };
  if (control.options) {
    input.append(...control.options.map(([value, words]) => new Option(words, value)));
  } else {
    Object.assign(input, { type: "range", min: control.min, max: control.max, step: control.step });
  }
  if (control.value !== undefined) input.value = control.value;
  input.addEventListener("input", () => {
    read();
    const list = control.resets && input.closest("figure").querySelector(`[name=${control.resets}]`);
    if (list) values[control.resets] = list.value = list.options[0].value;
    update();
  });
  read();
  label.append(control.label, " ", shown, input);
  return label;
}

// The keys work on the buttons and on the picture, which takes the focus for them.
function listenToKeys(figure, picture, buttons, state) {
  if (!buttons.length) return;
  const ariaLabel = buttons.map(({ key, label }) => `${label}: ${key}`).join(", ");
  Object.assign(picture, { tabIndex: 0, role: "application", ariaLabel });
  figure.addEventListener("keydown", (event) => {
    const button = buttons.find(({ key }) => key === event.key);
    if (!button || /INPUT|SELECT/.test(event.target.tagName)) return;
    event.preventDefault(); // the page would scroll
    button.press(state);
  });
}

// Moves only while the figure can be seen, and waits for the reader who prefers less motion.
function animate(figure, advance) {
  const button = document.createElement("button");
  button.type = "button";
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let visible = false;
  let last = 0;
  const tick = (now) => {
    if (!playing || !visible) return;
    advance(Math.min((now - last) / 1000, 0.1));
    last = now;
    requestAnimationFrame(tick);
  };
  const go = () => { last = performance.now(); requestAnimationFrame(tick); };
  const name = () => { button.textContent = playing ? "Pause" : "Play"; };
  button.addEventListener("click", () => { playing = !playing; name(); go(); });
  name();
  figure.querySelector(".explorable-controls").append(button);
  new IntersectionObserver(([entry]) => { visible = entry.isIntersecting; go(); }).observe(figure);
}
