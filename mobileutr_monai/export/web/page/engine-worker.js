// Runs the networks: by WebGPU where there is one whose masks are those of WebAssembly and which is faster, else by it.

const FILES = { wasm: "./vendor/ort.wasm.bundle.min.mjs", webgpu: "./vendor/ort.webgpu.bundle.min.mjs" };
const PATTERN_SIDES = [300, 420];

let runtime = null;
let provider = null;
const sessions = new Map();

self.onmessage = async ({ data }) => {
  const { number, action, ...message } = data;
  try {
    const value = await { load, run }[action](message);
    self.postMessage({ number, value }, value.data ? [value.data.buffer] : []);
  } catch (error) {
    self.postMessage({ number, error: String(error?.message ?? error) });
  }
};

async function load({ bundle, model, threads, channels, threshold, most }) {
  const bytes = new Uint8Array(model);
  if (!runtime) await start(bytes, threads, channels, threshold, most);
  sessions.set(bundle, await makeSession(bytes, provider));
  return { provider, threads };
}

async function start(bytes, threads, channels, threshold, most) {
  if (await hasGpu()) {
    try {
      await open("webgpu", threads);
      provider = (await prefersGpu(bytes, channels, threshold, most)) ? "webgpu" : "wasm";
      return;
    } catch {
      runtime = null; // such as a driver that fails; WebAssembly runs everywhere
    }
  }
  await open("wasm", threads);
  provider = "wasm";
}

async function hasGpu() {
  try {
    const adapter = await self.navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  } catch {
    return false;
  }
}

async function open(kind, threads) {
  runtime = await import(FILES[kind]);
  runtime.env.wasm.numThreads = threads;
  runtime.env.logLevel = "error";
}

function makeSession(bytes, name) {
  return runtime.InferenceSession.create(bytes, { executionProviders: [name], graphOptimizationLevel: "all" });
}

/** Compares both on a pattern: whether the GPU is faster, and labels the same pixels. */
async function prefersGpu(bytes, channels, threshold, most) {
  const [rows, columns] = PATTERN_SIDES;
  const pixels = Uint8Array.from({ length: rows * columns * channels }, (_, i) => {
    const place = Math.floor(i / channels), row = Math.floor(place / columns), column = place % columns;
    return 128 + 60 * Math.sin(row / 31) + 60 * Math.sin(column / 23 + (i % channels));
  });
  const found = {};
  for (const name of ["wasm", "webgpu"]) {
    const session = await makeSession(bytes, name);
    await compute(session, pixels, rows, columns, channels); // compiles
    found[name] = await compute(session, pixels, rows, columns, channels);
    await session.release();
  }
  const { wasm, webgpu } = found;
  let differing = 0;
  for (let i = 0; i < wasm.data.length; i += 1) differing += wasm.data[i] >= threshold !== webgpu.data[i] >= threshold;
  return webgpu.seconds < wasm.seconds && (100 * differing) / wasm.data.length <= most;
}

async function run({ bundle, pixels, rows, columns, channels }) {
  return compute(sessions.get(bundle), pixels, rows, columns, channels);
}

async function compute(session, pixels, rows, columns, channels) {
  const started = performance.now();
  const input = new runtime.Tensor("uint8", pixels, [rows, columns, channels]);
  const { probabilities } = await session.run({ pixels: input }, ["probabilities"]);
  const data = Float32Array.from(probabilities.data);
  return { data, count: probabilities.dims[0], size: rows * columns, seconds: (performance.now() - started) / 1000 };
}
