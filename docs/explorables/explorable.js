// The frame of every explorable figure: controls, a canvas, and a text that says what is drawn.
"use strict";

const explorables = { definitions: {}, data: {}, words: {} };

/* Registers a definition and mounts it in <figure id="explorable-NAME">:
 *   name      the file's name
 *   controls  [{name, label, min, max, step, value}] a slider; with `logarithmic: true` the slider is
 *             the exponent of ten, the value is rounded to two digits, and with `whole: true` to an integer;
 *             {name, label, options: [[value, label], ...], value} is a list to choose from;
 *             `options` may be a function of the data, and with `resets: NAME` the list of this name
 *             returns to its first entry;
 *             {name, label, press(state), key: "ArrowLeft"} is a button
 *   compute   (values, data) -> numbers, without page or clock: the tests compare it with minirl
 *   draw      (pen, numbers, values, state)
 *   describe  (numbers, values) -> the text alternative
 *   height    (width) -> height of the canvas in pixels, if it is not min(0.62 width, 380)
 *   advance   (state, seconds, numbers, values), if the figure moves; `state` begins as {}. After a
 *             change of the values, it is called with 0 seconds */
function explorable(definition) {
  explorables.definitions[definition.name] = definition;
  if (typeof document !== "undefined") mountExplorable(definition);
}

function mountExplorable({ name, controls, compute, draw, describe, advance, height }) {
  const figure = document.getElementById(`explorable-${name}`);
  const place = figure.querySelector(".explorable-controls");
  const canvas = figure.querySelector("canvas");
  const show = makeText(figure);
  const values = {};
  const state = {};
  let numbers = {};

  const redraw = () => draw(makePen(canvas, figure, height), numbers, values, state);
  const update = () => {
    numbers = compute(values, explorables.data[name]);
    figure.numbers = numbers; // the tests in a browser read these three
    figure.values = values;
    figure.state = state;
    show(describe(numbers, values));
    if (advance) advance(state, 0, numbers, values);
    redraw();
  };
  const buttons = controls.filter(({ press }) => press);
  for (const control of controls) if (!control.press) place.append(makeControl(control, name, values, update));
  update();
  if (advance) {
    const [button, play] = animate(figure, (seconds) => { advance(state, seconds, numbers, values); redraw(); });
    const press = (control) => { control.press(state); redraw(); play(); };
    for (const control of buttons) place.append(makeButton(control.label, () => press(control)));
    place.append(button);
    listenToKeys(figure, canvas.parentElement, buttons, press);
  }
  new ResizeObserver(() => { redraw(); show(); }).observe(canvas.parentElement);
  new MutationObserver(redraw).observe(document.body, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

function makeButton(label, press) {
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: label });
  button.addEventListener("click", press);
  return button;
}

function makeControl(control, name, values, update) {
  const options = typeof control.options === "function" ? control.options(explorables.data[name]) : control.options;
  const label = document.createElement("label");
  const input = document.createElement(options ? "select" : "input");
  const shown = Object.assign(document.createElement("span"), { className: "explorable-value", ariaHidden: "true" });
  Object.assign(input, { name: control.name, autocomplete: "off" }); // "off": going back restores no old position
  const read = () => {
    const value = Number(input.value);
    values[control.name] = options ? input.value : control.logarithmic ? Number((10 ** value).toPrecision(2)) : value;
    if (control.whole) values[control.name] = Math.round(values[control.name]);
    if (!options) {
      shown.textContent = String(values[control.name]);
      input.setAttribute("aria-valuetext", shown.textContent);
    }
  };
  if (options) input.append(...options.map(([value, words]) => new Option(words, value)));
  else Object.assign(input, { type: "range", min: control.min, max: control.max, step: control.step });
  if (control.value !== undefined) input.value = control.value;
  input.addEventListener("input", () => {
    read();
    const list = control.resets && input.closest("figure").querySelector(`[name=${control.resets}]`);
    if (list) values[control.resets] = list.value = list.options[0].value;
    update();
  });
  read();
  label.append(control.label, ...(options ? [input] : [" ", shown, input]));
  return label;
}

// The keys work on the buttons and on the picture, which takes the focus for them.
function listenToKeys(figure, picture, buttons, press) {
  if (!buttons.length) return;
  const ariaLabel = buttons.map(({ key, label }) => `${label}: ${key}`).join(", ");
  Object.assign(picture, { tabIndex: 0, role: "application", ariaLabel });
  figure.addEventListener("keydown", (event) => {
    const button = buttons.find(({ key }) => key === event.key);
    if (!button || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("input, select, a")) return;
    event.preventDefault(); // the page would scroll
    press(button);
  });
}

// Moves only while the figure can be seen, and waits for the reader who prefers less motion.
// Returns the button that starts and stops the motion, and a function that starts it.
function animate(figure, advance) {
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  let visible = false;
  let last = 0;
  let frame = 0;
  const tick = (now) => {
    if (!playing || !visible) return;
    advance(Math.min(Math.max(now - last, 0) / 1000, 0.1));
    last = now;
    frame = requestAnimationFrame(tick);
  };
  const go = (play) => {
    cancelAnimationFrame(frame); // of two loops, each would advance
    playing = play;
    button.textContent = playing ? say`Pause` : say`Play`;
    last = performance.now();
    frame = requestAnimationFrame(tick);
  };
  const button = makeButton("", () => go(!playing));
  new IntersectionObserver(([entry]) => { visible = entry.isIntersecting; go(playing); }).observe(figure);
  return [button, () => go(true)];
}
