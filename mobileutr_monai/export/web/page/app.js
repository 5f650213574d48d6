// The page: which image is shown with which bundle and threshold, and what the user does about it.

import { takeFrame } from "./camera.js";
import { load, run } from "./engine.js";
import { ImageError, readImage, toGrey } from "./images.js";
import { countPixels, crop, decide, findBetweenBars, findPeaks, keepLargestPieces, uncrop } from "./label.js";
import { keepAll, prepare } from "./offline.js";
import { encodeGrey } from "./png.js";
import { makeRow } from "./table.js";
import { Viewer } from "./viewer.js";

const HEAVY_BYTES = 512e6; // of pixels and probabilities that are kept, beyond the shown image's
const THUMBNAIL = 128;
const MODES = ["contour", "filled", "image"];
const PROVIDERS = { wasm: "WebAssembly", webgpu: "WebGPU" };

const $ = (selector) => document.querySelector(selector);
const viewer = new Viewer($("#view"));
const entries = []; // { name, file, image, found, button }, in the order of the strip
let site = null, bundle = null, current = null, threshold = 0.5, frames = 0, uses = 0;
let reading = Promise.resolve();

// Bundles

async function start() {
  const isKept = await prepare();
  const response = await fetch("site.json");
  if (!response.ok) throw new Error(`site.json could not be loaded (${response.status})`);
  site = await response.json();
  $("#reads-dicom").hidden = !site.dicom;
  const menu = $("#bundle");
  menu.replaceChildren(...site.bundles.map(({ id, name }) => new Option(name.replace(/ segmentation$/i, ""), id)));
  menu.disabled = site.bundles.length < 2;
  const asked = site.bundles.find(({ id }) => id === location.hash.slice(1));
  await chooseBundle((asked ?? site.bundles[0]).id);
  if (isKept) setOffline(await keepAll());
}

async function chooseBundle(id) {
  bundle = site.bundles.find((other) => other.id === id);
  $("#bundle").value = id;
  threshold = bundle.threshold;
  $("#threshold").value = threshold;
  $("#task").textContent = `${bundle.task}.`;
  $("#use").textContent = bundle.use;
  $("#version").textContent = `Version ${bundle.version}, weights ${bundle.weights_sha256.slice(0, 12)}`;
  for (const entry of entries) entry.found = null;
  const chosen = bundle;
  setStatus(`Loading the network (${(bundle.bytes / 1e6).toFixed(1)} MB)`);
  const { provider, threads } = await load(bundle, site);
  if (chosen !== bundle) return;
  const many = threads === 1 ? "one thread" : `${threads} threads`;
  setStatus(provider === "wasm" ? `${PROVIDERS.wasm}, ${many}` : PROVIDERS[provider]);
  document.body.dataset.ready = bundle.id;
  await refresh();
}

function setStatus(text) {
  $("#status").textContent = text;
}

function setOffline(isKept) {
  if (isKept) $("#status").textContent += " · works offline";
  document.body.dataset.offline = isKept;
}

// Images

function add(files) {
  for (const file of files) reading = reading.then(() => addOne(file)).catch(report);
  return reading;
}

async function addOne(file) {
  const name = file.name || "pasted image.png";
  try {
    const image = await readImage(file, site);
    const entry = { name, file, image, found: null, used: 0, error: "" };
    entry.button = makeButton(entry);
    entries.push(entry);
    await select(entry);
  } catch (error) {
    report(error, name);
  }
}

function makeButton(entry) {
  const { picture, rows, columns } = entry.image;
  const scale = THUMBNAIL / Math.min(rows, columns);
  const thumbnail = document.createElement("canvas");
  thumbnail.width = thumbnail.height = THUMBNAIL;
  const width = columns * scale, height = rows * scale;
  thumbnail.getContext("2d").drawImage(picture, (THUMBNAIL - width) / 2, (THUMBNAIL - height) / 2, width, height);
  const button = document.createElement("button");
  button.type = "button";
  button.title = entry.name;
  button.setAttribute("aria-label", entry.name);
  button.append(thumbnail);
  button.onclick = () => select(entry).catch(report);
  const item = document.createElement("li");
  item.append(button);
  $("#images").append(item);
  return button;
}

async function select(entry) {
  current = entry;
  for (const { button } of entries) button.removeAttribute("aria-current");
  entry?.button.setAttribute("aria-current", "true");
  entry?.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  $("#empty").hidden = Boolean(entry);
  $("#strip").hidden = !entry;
  $("#result").hidden = true;
  await refresh();
}

function remove() {
  if (!current) return;
  const place = entries.indexOf(current);
  current.button.parentElement.remove();
  entries.splice(place, 1);
  const next = entries[Math.min(place, entries.length - 1)] ?? null;
  select(next).catch(report);
  (next ? next.button : $("#empty button")).focus();
}

function step(by) {
  const next = entries[entries.indexOf(current) + by];
  if (next) select(next).catch(report);
}

/** Brings what is seen up to date: reads and segments the image where that is still to be done. */
async function refresh() {
  const entry = current;
  if (!entry || document.body.dataset.ready !== bundle.id) return show();
  const chosen = bundle;
  entry.used = uses += 1;
  try {
    if (!entry.image) entry.image = await readImage(entry.file, site);
    show();
    if (!entry.found) {
      $("#busy").hidden = false;
      const found = await segment(entry.image);
      if (chosen !== bundle) return undefined; // another refresh is under way
      entry.found = found;
      entry.error = "";
    }
    release();
  } catch (error) {
    entry.error = describe(error);
    if (entry === current) report(error, entry.name);
  }
  if (entry !== current) return undefined;
  $("#busy").hidden = true;
  return show();
}

async function segment(image) {
  const { modality, rows, columns } = image;
  if (modality && !bundle.modalities.includes(modality))
    throw new ImageError(`its modality is ${modality}; this bundle is for ${bundle.modalities.join(", ")}`);
  const started = performance.now();
  const given = bundle.channels === 1 ? toGrey(image) : image;
  const box = bundle.crop_bars ? findBetweenBars(given, site.bars) : [0, 0, rows, columns];
  const probabilities = await run(bundle, crop(given, box));
  return { box, probabilities, peaks: findPeaks(probabilities), seconds: (performance.now() - started) / 1000 };
}

/** Frees what is largest of the images that were looked at longest ago; it is made again when it is needed. */
function release() {
  let bytes = 0;
  for (const entry of [...entries].sort((one, other) => other.used - one.used)) {
    bytes += (entry.image?.pixels.length ?? 0) * 2.5 + (entry.found?.probabilities.data.byteLength ?? 0);
    if (bytes > HEAVY_BYTES && entry !== current) entry.image = entry.found = null;
  }
}

// Result

function makeLabel(entry) {
  const { box, probabilities, peaks } = entry.found;
  if (entry.found.threshold === threshold) return entry.found.label;
  const { rows, columns } = entry.image;
  let label = decide(probabilities, peaks, threshold, bundle.min_peak);
  if (bundle.largest_piece) label = keepLargestPieces(label, box[2] - box[0], box[3] - box[1]);
  entry.found.label = uncrop(label, box, rows, columns);
  entry.found.threshold = threshold;
  return entry.found.label;
}

function show() {
  const entry = current;
  document.body.dataset.shown = entry?.found ? `${bundle.id}/${entry.name}` : "";
  if (!entry?.image) return viewer.show(null);
  const { picture, rows, columns } = entry.image;
  const { labels } = bundle;
  const label = entry.found ? makeLabel(entry) : null;
  const shown = $("input[name=shown]:checked").value;
  viewer.show({ picture, rows, columns, label, labels, shown, threshold, probabilityAt: findProbabilities(entry.found) });
  $("#view").setAttribute("aria-label", `${entry.name}${entry.found ? ` with ${labels.map(({ name }) => name).join(", ")}` : ""}`);
  $("#threshold-value").textContent = threshold.toFixed(2);
  if (!entry.found) return undefined;
  $("#name").textContent = entry.name;
  const { spacing, tissue } = entry.image;
  const pixels = countPixels(label, columns, labels.length);
  const inTissue = tissue ? countPixels(label, columns, labels.length, tissue) : pixels;
  const size = spacing ? `, ${spacing.map((mm) => +mm.toPrecision(3)).join(" × ")} mm per pixel` : "";
  $("#facts").textContent = `${columns} × ${rows} pixels${size} · ${entry.found.seconds.toFixed(2)} s`;
  $("#regions tbody").replaceChildren(...labels.map((one, i) => makeRow(one, i, pixels[i], inTissue[i], entry)));
  $("#finding").textContent = explain(pixels, entry.found.peaks);
  const isOne = entry.found.probabilities.count === 1;
  $("#threshold").disabled = !isOne;
  const isDefault = threshold === bundle.threshold;
  const note = isDefault ? "The bundle's own threshold" : `The bundle's own threshold is ${bundle.threshold}`;
  $("#threshold-note").textContent = isOne ? note : "With several labels, the most probable one counts";
  $("#result").hidden = false;
  return undefined;
}

/** Returns row, column -> probability of the one label; null where there are several. */
function findProbabilities(found) {
  if (found?.probabilities.count !== 1) return null;
  const [top, left, bottom, right] = found.box;
  const { data } = found.probabilities;
  return (row, column) => {
    const inside = row >= top && row < bottom && column >= left && column < right;
    return inside ? data[(row - top) * (right - left) + column - left] : 0;
  };
}

function explain(pixels, peaks) {
  const missing = bundle.labels.filter((_, i) => !pixels[i]);
  return missing
    .map(({ name, index }) => {
      const peak = peaks[index - 1];
      if (peak < bundle.min_peak) return `No ${name}: its peak is below ${bundle.min_peak}, the least this bundle accepts.`;
      return `No ${name} at this threshold.`;
    })
    .join(" ");
}

async function save() {
  if (!current?.found) return;
  const { rows, columns } = current.image;
  const blob = await encodeGrey(makeLabel(current), rows, columns);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${current.name.replace(/\.[^.]+$/, "")}_mask.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60e3);
}

// Problems: one line each

function describe(error) {
  return String(error?.message ?? error).split("\n")[0];
}

function report(error, name = "") {
  if (!(error instanceof ImageError)) console.error(error);
  const item = document.createElement("li");
  const text = document.createElement("span");
  text.textContent = name ? `${name}: ${describe(error)}` : describe(error);
  const close = document.createElement("button");
  close.type = "button";
  close.textContent = "×";
  close.setAttribute("aria-label", "Dismiss");
  close.onclick = () => item.remove();
  item.append(text, close);
  $("#messages").prepend(item);
}

// What the user does

const actions = {
  choose: () => $("#files").click(),
  camera: async () => {
    try {
      const file = await takeFrame($("#camera"), `camera ${(frames += 1)}.png`);
      if (file) await add([file]);
    } catch (error) {
      report(new ImageError(`the camera cannot be used: ${describe(error)}`));
    }
  },
};

for (const button of document.querySelectorAll("[data-action]")) button.onclick = () => actions[button.dataset.action]();
$("#files").onchange = (event) => {
  add([...event.target.files]);
  event.target.value = "";
};
$("#bundle").onchange = (event) => chooseBundle(event.target.value).catch(report);
$("#save").onclick = () => save().catch(report);
$("#remove").onclick = remove;
let drawing = 0;
$("#threshold").oninput = (event) => {
  threshold = Number(event.target.value);
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(show);
};
for (const input of document.querySelectorAll("input[name=shown]")) input.onchange = show;

addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  add([...event.dataTransfer.files]);
});
addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) add(files);
});

const KEYS = {
  o: actions.choose,
  s: () => save().catch(report),
  c: () => {
    const shown = $("input[name=shown]:checked").value;
    $(`input[value=${MODES[(MODES.indexOf(shown) + 1) % MODES.length]}]`).click();
  },
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  "[": () => moveThreshold(-0.05),
  "]": () => moveThreshold(0.05),
};

function moveThreshold(by) {
  const input = $("#threshold");
  if (input.disabled) return;
  input.value = threshold + by;
  input.dispatchEvent(new Event("input"));
}

addEventListener("keydown", (event) => {
  const isTyped = event.target.matches?.("input, select") || $("#camera").open;
  if (isTyped || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

start().catch((error) => {
  setStatus("Not ready");
  report(error);
});
