// The page: a picture in, what the network makes of it on the screen. Text that comes from files is set as text only.

import { open } from "./network.js";
import { decode } from "./pixels.js";
import { best, softmax, underPrior } from "./posterior.js";
import { fit } from "./resize.js";

const PALETTE = 6; // colours of tasks in page.css
const byId = (id) => document.getElementById(id);
const percent = (p) => `${(100 * p).toFixed(1)} %`;

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

start().catch((error) => {
  byId("status").hidden = true;
  complain(error);
});

async function start() {
  const answer = await fetch("model.json");
  if (!answer.ok) throw new Error(`model.json cannot be loaded (${answer.status}).`);
  const model = await answer.json();
  describe(model);
  const classify = await open(model);
  const view = new View(model);
  let latest = 0;

  /** Classify a picture; of two in a row the later one is shown. */
  async function look(blob, sample = null) {
    const turn = ++latest;
    for (const button of byId("sample-list").children) button.setAttribute("aria-pressed", button === sample);
    byId("status").hidden = false;
    byId("status").textContent = "Looking …";
    try {
      const began = performance.now();
      const image = await decode(await blob);
      const decoded = performance.now();
      await new Promise((resolve) => setTimeout(resolve)); // let the browser draw before the work
      if (turn !== latest) return;
      const fitting = performance.now();
      const seen = fit(image, model.input);
      const fitted = performance.now();
      const logits = await classify(seen);
      const times = { read: decoded - began, fit: fitted - fitting, network: performance.now() - fitted };
      if (turn !== latest) return;
      byId("error").hidden = true;
      view.show(image, seen, logits, times);
    } catch (error) {
      if (turn === latest) complain(error);
    } finally {
      if (turn === latest) byId("status").hidden = true;
    }
  }

  listen(look);
  showSamples(model, look);
  byId("file").disabled = false;
  byId("status").hidden = true;
  document.body.dataset.ready = "true";
}

function complain(error) {
  byId("result").hidden = true; // what is there would be of another picture
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

/** What is known before any picture. */
function describe(model) {
  document.title = model.title;
  byId("title").textContent = model.title;
  const tasks = model.tasks.length > 1 ? `, ${model.tasks.length} ${model.experts ? "experts" : "tasks"}` : "";
  byId("network").textContent = `Network: ${model.architecture}, ${model.labels.length} classes${tasks}.`;
  byId("runtime").textContent = model.runtime;
  byId("seen-caption").textContent = `What the network sees, ${model.input.side} × ${model.input.side}`;
}

/** Files from the button, from a drop, from the clipboard. */
function listen(look) {
  const first = (files) => files.length && look(files[0]);
  byId("file").addEventListener("change", (event) => {
    first(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
  document.addEventListener("paste", (event) => first(event.clipboardData.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    first(event.dataTransfer.files);
  });
}

function showSamples({ samples, samples_title: title }, look) {
  byId("samples-title").textContent = title;
  byId("samples").hidden = samples.length === 0;
  for (const { file, name } of samples) {
    const picture = element("img", { src: file, alt: name });
    const button = element("button", { type: "button", title: name }, picture);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => look(fetch(file).then((answer) => answer.blob()), button));
    byId("sample-list").append(button);
  }
}

/** The result of the last picture, and the slider that weighs it anew. */
class View {
  constructor(model) {
    this.model = model;
    this.taskOf = [];
    model.tasks.forEach(({ classes }, k) => classes.forEach((c) => (this.taskOf[c] = k)));
    this.strength = byId("strength");
    this.strength.addEventListener("input", () => this.fused());
    byId("prior").hidden = !model.class_counts;
    byId("tasks-section").hidden = model.tasks.length < 2;
    byId("tasks-title").textContent = `What each ${model.experts ? "expert" : "task"} said`;
    const mine = model.open_none
      ? "none sums up all others, which the task tells apart, too: the answer is the mean over the tasks."
      : "none means: not one of mine.";
    byId("tasks-words").textContent = model.none
      ? `Each task speaks of its own classes; ${mine} The class prior above does not touch them.`
      : "Every expert knows all classes; their mean is the answer.";
  }

  show(image, seen, logits, times) {
    this.logits = logits;
    byId("result").hidden = false;
    paint(byId("picture"), image);
    paint(byId("seen"), seen);
    this.fused();
    byId("tasks").replaceChildren(...this.model.tasks.map((task, k) => this.task(task, k)));
    const ms = (name) => `${times[name].toFixed(1)} ms`;
    const before = `${ms("read")} to read the picture and ${ms("fit")} to fit it`;
    byId("time").textContent = `The network took ${ms("network")}, after ${before}.`;
  }

  /** The fused answer under the prior that the slider says. */
  fused() {
    const { labels, class_counts: counts, tasks, none, topk } = this.model;
    const strength = Number(this.strength.value);
    const words = strength === 0 ? "All classes are taken to be equally likely."
      : strength === 1 ? "Classes are taken to be as frequent as among the training pictures."
      : `Between the two: training frequencies to the power ${strength.toFixed(2)}.`;
    this.strength.setAttribute("aria-valuetext", words);
    byId("prior-words").textContent = words;
    if (!this.logits) return;
    const probabilities = softmax(underPrior(this.logits.fused, counts, strength));
    const chosen = best(probabilities, topk);
    byId("classes").replaceChildren(...chosen.map((c) => {
      const k = this.taskOf[c];
      const row = bar(labels[c], probabilities[c], none ? colour(k) : "");
      if (none) row.firstChild.append(element("span", { className: "tag", textContent: tasks[k].name }));
      row.dataset.class = c;
      return row;
    }));
    const [top] = chosen;
    const call = none ? `, a class of the ${tasks[this.taskOf[top]].name} task` : "";
    const sure = element("small", { textContent: `with ${percent(probabilities[top])}${call}` });
    byId("answer").replaceChildren(inWords(labels[top]), sure);
  }

  /** What one task said, fused with nobody. */
  task({ name, detail, classes }, k) {
    const { labels, none, experts } = this.model;
    const probabilities = softmax(this.logits.tasks[k]);
    const rows = best(probabilities.slice(0, classes.length), 3).map((i) => bar(labels[classes[i]], probabilities[i]));
    if (none) {
      rows.push(bar("none", probabilities.at(-1)));
      rows.at(-1).classList.add("none");
    }
    const heading = experts ? name : `${name} task`;
    return element("section", { className: colour(k) },
      element("h3", { textContent: heading }), element("p", { textContent: detail }), element("ol", {}, ...rows));
  }
}

const colour = (k) => `task${k % PALETTE}`;

/** Labels of data sets are often written for programs: palm_tree. */
const inWords = (label) => label.replaceAll("_", " ");

function bar(label, probability, className = "") {
  const filled = element("span");
  filled.style.width = `${100 * probability}%`;
  return element("li", { className },
    element("span", { className: "label" }, element("span", { textContent: inWords(label) })),
    element("span", { className: "value", textContent: percent(probability) }),
    element("span", { className: "bar" }, filled));
}

/** Draw an image at its own size, or at most 640 pixels wide and high. */
function paint(canvas, { width, height, data }) {
  const step = Math.max(1, Math.ceil(Math.max(width, height) / 640));
  canvas.width = Math.floor(width / step) || 1;
  canvas.height = Math.floor(height / step) || 1;
  const pixels = new Uint32Array(data.buffer);
  const small = new Uint32Array(canvas.width * canvas.height);
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) small[y * canvas.width + x] = pixels[y * step * width + x * step];
  }
  const shown = new ImageData(new Uint8ClampedArray(small.buffer), canvas.width, canvas.height);
  canvas.getContext("2d").putImageData(shown, 0, 0);
}
