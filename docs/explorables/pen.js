// What every explorable figure draws with: lines, words, axes, a legend and dots.
"use strict";

// Round values between min and max, at most `count` steps of 1, 2 or 5 times a power of ten, with their words.
function roundTicks(min, max, count) {
  const range = (max - min) * (1 - 1e-9);
  const power = 10 ** Math.floor(Math.log10(range / count));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power * count >= range);
  const ticks = [];
  for (let i = Math.ceil(min / step - 1e-9); i <= max / step + 1e-9; i++) {
    const value = Number((i * step).toPrecision(12));
    ticks.push([value, String(value)]);
  }
  return ticks;
}

// A canvas in CSS pixels with the colours of the page: context, width, height, colour and six helpers.
function makePen(canvas, figure, heightOf = (wide) => Math.min(wide * 0.62, 380)) {
  const style = getComputedStyle(figure);
  const width = canvas.parentElement.clientWidth;
  const height = Math.round(heightOf(width));
  const density = window.devicePixelRatio || 1;
  canvas.width = width * density;
  canvas.height = height * density;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(density, density);
  context.font = `13px ${style.fontFamily}`;
  const colour = {};
  for (const key of ["ink", "faint", "paper", "blue", "vermillion", "green", "orange", "purple", "sky"]) {
    colour[key] = style.getPropertyValue(`--explorable-${key}`).trim();
  }
  const line = (points, stroke, { dash = [], thickness = 2 } = {}) => {
    context.beginPath();
    context.setLineDash(dash);
    context.lineWidth = thickness;
    context.strokeStyle = stroke;
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
    context.setLineDash([]);
  };
  // Words that are too long for the canvas are drawn narrower, so that nothing is cut.
  const text = (words, x, y, { fill = colour.ink, align = "left" } = {}) => {
    Object.assign(context, { fillStyle: fill, textAlign: align, textBaseline: "middle" });
    const space = { left: width - x, right: x, center: 2 * Math.min(x, width - x) }[align];
    context.fillText(words, x, y, Math.max(1, space));
  };
  // Axes in a box [left, top, right, bottom]; x and y are {min, max, label, ticks: [[value, words]]}.
  const axes = ([left, top, right, bottom], x, y) => {
    const scale = ({ min, max, logarithmic }, from, to) => {
      const map = logarithmic ? Math.log : (value) => value;
      return (value) => from + ((map(value) - map(min)) / (map(max) - map(min))) * (to - from);
    };
    const toX = scale(x, left, right);
    const toY = scale(y, bottom, top);
    for (const [value, words] of x.ticks) {
      line([[toX(value), top], [toX(value), bottom]], colour.faint, { thickness: 1 });
      text(words, toX(value), bottom + 12, { align: "center" });
    }
    for (const [value, words] of y.ticks) {
      line([[left, toY(value)], [right, toY(value)]], colour.faint, { thickness: 1 });
      text(words, left - 6, toY(value), { align: "right" });
    }
    text(x.label, (left + right) / 2, bottom + 30, { align: "center" });
    text(y.label, left, top - 12);
    return { x: toX, y: toY };
  };
  // A legend in rows that begin at (left, y), for [words, stroke, dash]; returns the place below it.
  const legend = (items, y = 10, left = 0) => {
    let x = left;
    for (const [words, stroke, dash] of items) {
      const space = context.measureText(words).width + 44;
      if (x > left && x + space - 16 > width) [x, y] = [left, y + 18];
      line([[x, y], [x + 22, y]], stroke, { dash });
      text(words, x + 28, y);
      x += space;
    }
    return y + 18;
  };
  const dot = (x, y, fill, radius = 6) => {
    context.fillStyle = fill;
    context.beginPath();
    context.arc(x, y, radius, 0, 7);
    context.fill();
  };
  return { context, width, height, colour, line, text, axes, ticks: roundTicks, legend, dot };
}
