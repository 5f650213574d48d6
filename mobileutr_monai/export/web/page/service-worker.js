// Keeps the files of this folder for use without a network; gives each answer the headers that a server may not send.

const KEPT = __KEPT__;
const PREFIX = `mobileutr-web ${self.registration.scope} `;
const CACHE = PREFIX + KEPT.release;
const HEADERS = {
  "Content-Security-Policy": KEPT.policy,
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};
const LISTED = new Set([...KEPT.page, ...KEPT.large].map((name) => new URL(name, self.registration.scope).href));

self.addEventListener("install", (event) => {
  const requests = KEPT.page.map((name) => new Request(name, { cache: "reload" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(removeOthers().then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

self.addEventListener("message", (event) => {
  if (event.data === "keep") event.waitUntil(keep().then((kept) => event.ports[0].postMessage(kept)));
});

async function removeOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name)));
}

async function answer(request) {
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== self.location.origin) return Response.error();
  const address = origin + (request.mode === "navigate" ? pathname.replace(/index\.html$/, "") : pathname);
  const found = (await caches.match(address, { cacheName: CACHE })) ?? (await load(address));
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}

async function load(address) {
  let response;
  try {
    response = await fetch(address, { cache: "no-cache" });
  } catch {
    return new Response("", { status: 504, statusText: "no network, and not kept" });
  }
  if (response.ok && LISTED.has(address)) {
    const cache = await caches.open(CACHE);
    await cache.put(address, response.clone()).catch(() => {}); // the disk may be full
  }
  return response;
}

async function keep() {
  const cache = await caches.open(CACHE);
  let whole = true;
  for (const name of KEPT.large) {
    const address = new URL(name, self.registration.scope).href;
    if (!(await cache.match(address))) whole = (await load(address)).ok && whole;
  }
  return whole && (await Promise.all([...LISTED].map((address) => cache.match(address)))).every(Boolean);
}
