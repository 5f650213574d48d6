// Asks the worker that runs the networks, one request after the other.

const worker = new Worker("engine-worker.js", { type: "module" });
const waiting = new Map();
let number = 0;
let last = Promise.resolve();

worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.get(data.number);
  waiting.delete(data.number);
  if ("error" in data) reject(new Error(data.error));
  else resolve(data.value);
};
worker.onerror = (event) => {
  for (const { reject } of waiting.values()) reject(new Error(event.message || "the worker could not be started"));
  waiting.clear();
};

function ask(message, transfer = []) {
  const answer = last.then(
    () =>
      new Promise((resolve, reject) => {
        number += 1;
        waiting.set(number, { resolve, reject });
        worker.postMessage({ number, ...message }, transfer);
      }),
  );
  last = answer.catch(() => {});
  return answer;
}

const loads = new Map();

/** Loads a bundle's network once; returns what computes it, as { provider, threads }. */
export function load(bundle, site) {
  if (!loads.has(bundle.id)) {
    const loaded = fetchModel(bundle).then((model) => ask({ action: "load", bundle: bundle.id, model, ...options(bundle, site) }, [model]));
    loaded.catch(() => loads.delete(bundle.id));
    loads.set(bundle.id, loaded);
  }
  return loads.get(bundle.id);
}

/** Returns { data, count, size, seconds }: probabilities of an image, channel by channel. */
export async function run(bundle, { pixels, rows, columns, channels }) {
  const copy = pixels.slice();
  return ask({ action: "run", bundle: bundle.id, pixels: copy, rows, columns, channels }, [copy.buffer]);
}

async function fetchModel(bundle) {
  const response = await fetch(bundle.model);
  if (!response.ok) throw new Error(`${bundle.model} could not be loaded (${response.status})`);
  return response.arrayBuffer();
}

function options(bundle, site) {
  return {
    threads: globalThis.crossOriginIsolated ? countThreads() : 1,
    channels: bundle.channels,
    threshold: bundle.threshold,
    most: site.max_mismatch_percent,
  };
}

/** Half of the cores, at most 4, as ONNX Runtime itself chooses: its threads wait busily, so a core that is not free slows all. */
function countThreads() {
  return Math.min(Math.ceil((navigator.hardwareConcurrency || 1) / 2), 4);
}
