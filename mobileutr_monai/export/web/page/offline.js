// The service worker: it keeps the files for use without a network, and isolates the page, which threads need.

const PATIENCE_MS = 4000;
const RELOADED = "mobileutr-web-reloaded";

/**
 * Registers the service worker; reloads the page once where that isolates it.
 *
 * Returns whether the page works without a network from now on, once keepAll has ended.
 */
export async function prepare() {
  if (!navigator.serviceWorker) return false; // neither https nor localhost
  try {
    await navigator.serviceWorker.register("service-worker.js");
    await Promise.race([controlled(), new Promise((resolve) => setTimeout(resolve, PATIENCE_MS))]);
  } catch {
    return false;
  }
  if (!navigator.serviceWorker.controller) return false;
  if (globalThis.crossOriginIsolated) sessionStorage.removeItem(RELOADED);
  else if (!sessionStorage.getItem(RELOADED)) {
    sessionStorage.setItem(RELOADED, "1");
    location.reload();
    await new Promise(() => {});
  }
  return true;
}

/** Has all large files kept; returns whether they are. */
export function keepAll() {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = ({ data }) => resolve(data === true);
    navigator.serviceWorker.controller.postMessage("keep", [channel.port2]);
  });
}

function controlled() {
  if (navigator.serviceWorker.controller) return Promise.resolve();
  return new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
}
