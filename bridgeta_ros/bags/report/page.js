"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const { grid, classes, frames } = data;
const [width, height] = grid.size;
const canvases = Object.fromEntries(["prediction", "truth", "errors"].map((id) => [id, byId(id)]));
const initial = classes.map((cls) => cls.threshold);
const thresholds = [...initial]; // percent
const enabled = classes.map(() => true);
const scored = frames.map((_, i) => i).filter((i) => frames[i].counts !== null);
const rows = []; // of the table of classes
const loaded = new Map(); // decoded planes by source, the latest last
let current = 0, ticket = 0, timer = null, shown = null, worst = [];

// Two pictures hold three classes each, one per channel: 0 is unknown, 1 to 21 are 0 to 100 %, rounded down.
async function decode(sources) {
  const planes = [];
  for (const source of sources) {
    const image = make("img", { src: source });
    await image.decode();
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data;
    for (let channel = 0; channel < 3; channel++) {
      planes.push(Uint8Array.from({ length: pixels.length / 4 }, (_, i) => pixels[4 * i + channel]));
    }
  }
  return planes;
}

async function load(sources) {
  const planes = loaded.get(sources) ?? await decode(sources);
  loaded.delete(sources);
  loaded.set(sources, planes);
  if (loaded.size > 12) loaded.delete(loaded.keys().next().value);
  return planes;
}

const percent = (level) => 5 * (level - 1);

// Which class each cell shows, or -1, by thresholds in percent.
function findTop(planes, least) {
  const top = new Int8Array(width * height).fill(-1);
  for (const c of data.order) {
    if (!enabled[c]) continue;
    const plane = planes[c];
    for (let i = 0; i < top.length; i++) if (plane[i] > 0 && percent(plane[i]) >= least[c]) top[i] = c;
  }
  return top;
}

// Whether a cell of a class borders on one that is not of it; the end of the grid is no border.
function isEdge(plane, least, i) {
  const x = i % width, y = (i - x) / width;
  const absent = (j) => plane[j] === 0 || percent(plane[j]) < least;
  return (x > 0 && absent(i - 1)) || (x < width - 1 && absent(i + 1))
    || (y > 0 && absent(i - width)) || (y < height - 1 && absent(i + width));
}

const hatch = (x, y) => data.hatch.colours[(x + y) % data.hatch.period < data.hatch.width ? 0 : 1];
const isUnknown = (planes, i) => planes.every((plane) => plane[i] === 0);

function colourClasses(planes, least) {
  const top = findTop(planes, least), image = new ImageData(width, height);
  for (let i = 0; i < top.length; i++) {
    const c = top[i];
    let colour = data.paper;
    if (isUnknown(planes, i)) colour = hatch(i % width, Math.floor(i / width));
    else if (c >= 0) {
      const { colour: full, tints } = classes[c], step = (100 - least[c]) / tints.length;
      const sure = tints.findLastIndex((_, k) => percent(planes[c][i]) >= least[c] + k * step);
      colour = isEdge(planes[c], least[c], i) ? full : tints[sure];
    }
    image.data.set([...colour, 255], 4 * i);
  }
  return image;
}

function colourErrors(planes, truth) {
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    let name = null;
    for (const c of data.order) {
      if (!enabled[c] || truth[c][i] === 0) continue;
      const there = percent(truth[c][i]) >= 50, predicted = planes[c][i] > 0 && percent(planes[c][i]) >= thresholds[c];
      if (there || predicted) name = there ? (predicted ? "right" : "missed") : "invented";
    }
    const colour = isUnknown(planes, i) ? hatch(i % width, Math.floor(i / width)) : name ? data.errors[name] : data.paper;
    image.data.set([...colour, 255], 4 * i);
  }
  return image;
}

function put(canvas, image) {
  const small = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  return context;
}

function drawLines(context, truth) {
  const scale = context.canvas.width / width;
  context.lineWidth = Math.max(1, scale / 3);
  for (const c of data.order) {
    if (!enabled[c]) continue;
    const inside = (x, y) => percent(truth[c][y * width + x]) >= 50;
    context.strokeStyle = `rgb(${classes[c].colour.map((value) => .6 * value)})`;
    context.beginPath();
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (x + 1 < width && inside(x, y) !== inside(x + 1, y)) {
          context.moveTo((x + 1) * scale, y * scale);
          context.lineTo((x + 1) * scale, (y + 1) * scale);
        }
        if (y + 1 < height && inside(x, y) !== inside(x, y + 1)) {
          context.moveTo(x * scale, (y + 1) * scale);
          context.lineTo((x + 1) * scale, (y + 1) * scale);
        }
      }
    }
    context.stroke();
  }
}

function drawVehicle(context) {
  const scale = context.canvas.width / (grid.y_max - grid.y_min);
  const at = (x, y) => [(grid.y_max - y) * scale, (grid.x_max - x) * scale];
  context.font = "13px system-ui, sans-serif";
  for (const radius of data.rings) {
    context.lineWidth = 1.5;
    context.strokeStyle = "rgba(40, 48, 56, .55)";
    context.beginPath();
    context.arc(...at(0, 0), radius * scale, 0, 2 * Math.PI);
    context.stroke();
    const place = at(radius * Math.cos(.6), radius * Math.sin(.6));
    context.lineWidth = 3;
    context.strokeStyle = "rgba(255, 255, 255, .8)";
    context.strokeText(`${radius} m`, ...place);
    context.fillStyle = "#1d2329";
    context.fillText(`${radius} m`, ...place);
  }
  // A car of 4.1 x 1.7 m whose origin is on the rear axle.
  context.beginPath();
  [[3.1, 0], [-1, .95], [-.4, 0], [-1, -.95]].forEach(([x, y], i) => context[i ? "lineTo" : "moveTo"](...at(x, y)));
  context.closePath();
  context.fillStyle = "#1d2329";
  context.fill();
}

// IoU of a class at its threshold over some frames; null where nothing of it is there. Counts are [level][label].
function computeIou(c, indices) {
  let right = 0, predicted = 0, there = 0;
  for (const i of indices) {
    frames[i].counts[c].forEach(([no, yes], level) => {
      there += yes;
      if (5 * level >= thresholds[c]) { right += yes; predicted += no + yes; }
    });
  }
  return there ? right / (predicted + there - right) : null;
}

function average(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((a, b) => a + b) / known.length : null;
}

const format = (share) => share === null ? "-" : (100 * share).toFixed(1);
const chosen = () => classes.map((_, c) => c).filter((c) => enabled[c]);

function updateScores() {
  if (!scored.length) return;
  const here = frames[current].counts === null ? [] : [current];
  const ofFrame = classes.map((_, c) => here.length ? computeIou(c, here) : null);
  const ofAll = classes.map((_, c) => computeIou(c, scored));
  rows.forEach(({ frame, all }, c) => { frame.textContent = format(ofFrame[c]); all.textContent = format(ofAll[c]); });
  byId("mean-frame").textContent = format(average(chosen().map((c) => ofFrame[c])));
  byId("mean-all").textContent = format(average(chosen().map((c) => ofAll[c])));
  worst = scored.map((i) => [i, average(chosen().map((c) => computeIou(c, [i])))])
    .filter(([, iou]) => iou !== null).sort((a, b) => a[1] - b[1]).slice(0, 5);
  byId("worst").replaceChildren(...worst.map(([i, iou]) => {
    const button = make("button", { textContent: `${frames[i].time.toFixed(2)} s: mean IoU ${format(iou)} %` });
    button.setAttribute("aria-current", i === current);
    button.addEventListener("click", () => { play(false); show(i); });
    return make("li", {}, button);
  }));
}

function paint() {
  if (shown === null) return;
  const { prediction, truth } = shown;
  const context = put(canvases.prediction, colourClasses(prediction, thresholds));
  if (truth !== null && byId("lines").checked) drawLines(context, truth);
  drawVehicle(context);
  if (canvases.truth === null) return;
  for (const canvas of [canvases.truth, canvases.errors]) {
    if (truth === null) canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }
  if (truth === null) return;
  drawVehicle(put(canvases.truth, colourClasses(truth, classes.map(() => 50))));
  drawVehicle(put(canvases.errors, colourErrors(prediction, truth)));
}

async function show(index) {
  current = Math.max(0, Math.min(frames.length - 1, index));
  const frame = frames[current], mine = ++ticket;
  byId("slider").value = current;
  byId("time").textContent = `set ${current + 1} of ${frames.length}, ${frame.time.toFixed(2)} s`;
  byId("slider").setAttribute("aria-valuetext", byId("time").textContent);
  const line = byId("now");
  if (line) {
    const x = +line.dataset.left + line.dataset.width * frame.share;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
  }
  document.querySelectorAll(".cameras img").forEach((image, i) => { image.src = frame.images[i]; });
  const prediction = await load(frame.prediction);
  const truth = frame.truth === null ? null : await load(data.truths[frame.truth]);
  if (mine !== ticket) return;
  shown = { prediction, truth };
  const note = byId("truth-note");
  if (note) note.textContent = truth === null ? "none so far" : frame.counts === null
    ? `of the keyframe ${frame.age.toFixed(2)} s before` : "of this moment";
  paint();
  updateScores();
  document.body.dataset.shown = current;
}

function play(on) {
  byId("play").textContent = on ? "Pause" : "Play";
  byId("play").setAttribute("aria-pressed", on);
  clearTimeout(timer);
  timer = null;
  if (!on) return;
  const next = (current + 1) % frames.length;
  const pause = next ? frames[next].time - frames[current].time : 1;
  timer = setTimeout(async () => { await show(next); if (timer !== null) play(true); },
                     1000 * Math.min(Math.max(pause, .02), 2) / +byId("speed").value);
}

function point(event) {
  if (shown === null) return;
  const box = event.currentTarget.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left) / box.width * width);
  const row = Math.floor((event.clientY - box.top) / box.height * height);
  if (column < 0 || row < 0 || column >= width || row >= height) return;
  const i = row * width + column, size = (grid.y_max - grid.y_min) / width;
  const x = grid.x_max - (row + .5) * size, y = grid.y_max - (column + .5) * size;
  const read = (planes) => isUnknown(planes, i) ? "unknown" : classes.map((cls, c) => [cls.name, planes[c][i]])
    .filter(([, level]) => level > 1).map(([name, level]) => `${name} ${percent(level)} %`).join(", ") || "nothing";
  const truth = shown.truth === null ? "" : `. Truth: ${read(shown.truth).replaceAll(" 100 %", "")}`;
  byId("pointer").textContent = `${Math.abs(x).toFixed(1)} m ${x < 0 ? "behind" : "ahead"}, `
    + `${Math.abs(y).toFixed(1)} m to the ${y < 0 ? "right" : "left"}: ${read(shown.prediction)}${truth}`;
}

function addClass(cls, c) {
  const box = make("input", { type: "checkbox", checked: true });
  const swatch = make("span", { className: "swatch" });
  swatch.style.background = `rgb(${cls.colour})`;
  const range = make("input", { type: "range", min: 5, max: 95, step: 5, value: cls.threshold });
  range.setAttribute("aria-label", `threshold of ${cls.name}`);
  const value = make("span", { className: "value", textContent: `${cls.threshold} %` });
  box.addEventListener("change", () => { enabled[c] = box.checked; paint(); updateScores(); });
  range.addEventListener("input", () => {
    thresholds[c] = +range.value;
    value.textContent = `${range.value} %`;
    paint();
    updateScores();
  });
  const row = { range, frame: make("td", { textContent: "-" }), all: make("td", { textContent: "-" }) };
  rows.push(row);
  const cells = [make("td", {}, make("label", {}, box, swatch, cls.name)),
                 make("td", {}, make("div", { className: "range" }, range, value))];
  byId("classes").tBodies[0].append(make("tr", {}, ...cells, ...(scored.length ? [row.frame, row.all] : [])));
}

classes.forEach(addClass);
if (scored.length) {
  const cells = ["mean", "", "-", "-"].map((text) => make("td", { textContent: text }));
  cells[2].id = "mean-frame";
  cells[3].id = "mean-all";
  byId("classes").tBodies[0].append(make("tr", { className: "sum" }, ...cells));
}
byId("lines-box").hidden = canvases.truth === null;
byId("lines").addEventListener("change", paint);
byId("reset").addEventListener("click", () => rows.forEach(({ range }, c) => {
  range.value = initial[c];
  range.dispatchEvent(new Event("input"));
}));
for (const canvas of Object.values(canvases)) canvas?.addEventListener("pointermove", point);
for (const button of document.querySelectorAll(".cameras button")) {
  button.addEventListener("click", () => {
    const image = button.querySelector("img");
    Object.assign(byId("enlarged").querySelector("img"), { src: image.src, alt: image.alt });
    byId("enlarged").showModal();
  });
}
byId("enlarged").addEventListener("click", (event) => { if (event.target === byId("enlarged")) byId("enlarged").close(); });
byId("chart").addEventListener("click", (event) => {
  const line = byId("now"), svg = line?.ownerSVGElement;
  if (!svg) return;
  const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
  const share = (x - line.dataset.left) / line.dataset.width;
  play(false);
  show(frames.reduce((best, frame, i) => Math.abs(frame.share - share) < Math.abs(frames[best].share - share) ? i : best, 0));
});
byId("slider").max = frames.length - 1;
byId("slider").addEventListener("input", (event) => { play(false); show(+event.target.value); });
byId("play").addEventListener("click", () => play(timer === null));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || byId("enlarged").open) return;
  const isSlider = event.target.matches("#classes input[type=range], select");
  if (event.key === " " && event.target.matches("select, button, [type=checkbox]")) return;
  const go = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: frames.length - 1 }[event.key];
  if (event.key === " ") play(timer === null);
  else if (go !== undefined && !isSlider) { play(false); show(go); }
  else if (event.key === "t" && canvases.truth !== null) { byId("lines").checked = !byId("lines").checked; paint(); }
  else if (event.key === "w" && worst.length) {
    play(false);
    show(worst[(worst.findIndex(([i]) => i === current) + 1) % worst.length][0]);
  } else return;
  event.preventDefault();
});
show(0);
