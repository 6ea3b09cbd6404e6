// A service worker: keeps all files of the page, so that it loads without network, and sends the headers that threads
// need with them, which many hosts do not. web_page.py writes VERSION and FILES in front of this.

const OURS = `sourcesep ${self.registration.scope} `; // other pages of the host have caches too
const NAME = OURS + VERSION;
const ADDRESSES = new Set(FILES.map((file) => new URL(file, self.registration.scope).href));

self.addEventListener("install", (event) => {
  self.skipWaiting();
  const requests = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => {
  const isOld = (name) => name.startsWith(OURS) && name !== NAME;
  event.waitUntil(caches.keys().then((names) => Promise.all(names.filter(isOld).map((name) => caches.delete(name)))));
});

self.addEventListener("fetch", (event) => {
  const { origin, pathname } = new URL(event.request.url);
  if (ADDRESSES.has(origin + pathname)) event.respondWith(answer(event.request));
});

/** Asks the host first, past the browser's own cache, so that a new export is seen at once and as a whole. */
async function answer(request) {
  const network = await fetch(request, { cache: "no-cache" }).catch(() => null);
  if (network && request.mode === "navigate" && !(await isOurs())) {
    await Promise.all([self.registration.unregister(), caches.delete(NAME)]);
    return network;
  }
  const response = network ?? (await caches.match(request, { cacheName: NAME, ignoreSearch: true }));
  if (!response?.ok) return response ?? Response.error();
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}

/** Returns whether the page is still at its address; another program may have its port of localhost by now. */
async function isOurs() {
  const script = await fetch("offline.js", { cache: "no-cache" }).catch(() => null);
  return !script || (script.ok && /javascript/.test(script.headers.get("Content-Type")));
}
