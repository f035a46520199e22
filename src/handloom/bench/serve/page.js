// What `handloom bench serve` asks of a page: how long until something that was asked for is seen.
(() => {
  const bench = (window.bench = { pressed: 0 });
  performance.setResourceTimingBufferSize(100000);
  addEventListener("keydown", (event) => (bench.pressed = event.timeStamp), true);
  const LONGEST_MS = 60000;
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const requests = (path) => performance.getEntriesByType("resource").filter((one) => new URL(one.name).pathname === path);
  const first = (one) => ["0", null].includes(new URL(one.name).searchParams.get("offset"));
  bench.ready = () => performance.clearResourceTimings();
  // Until the first card of the next search has its picture. `asked`: no search is awaited where it is false.
  bench.hit = async (began, card, asked = true) => {
    const given_up = performance.now() + LONGEST_MS;
    while (performance.now() < given_up) {
      await frame();
      const search = requests("/api/search").find(first); // counts may come with a second one
      const image = document.querySelector(`${card} img`);
      if ((asked && !search?.responseEnd) || !image?.complete || !image.naturalWidth) continue;
      await image.decode();
      await frame();
      const from = asked ? Math.min(began || search.startTime, search.startTime) : 0;
      const id = image.closest("a").getAttribute("href").split("/clip/")[1].split("?")[0];
      return { ms: performance.now() - from, search_ms: search ? search.responseEnd - search.startTime : null, id };
    }
    throw new Error(`no card with a picture within ${LONGEST_MS / 1000} s: ${document.querySelector("main")?.innerText.slice(0, 300)}`);
  };
  bench.click = (selector, card) => {
    bench.ready();
    const began = performance.now();
    document.querySelector(selector).click();
    return bench.hit(began, card);
  };
  // Until the frame after the next press of a key is on the canvas.
  bench.drawn = () => new Promise((done, failed) => {
    const stage = document.querySelector(".clip-stage");
    setTimeout(() => failed(new Error(`no frame was drawn within ${LONGEST_MS / 1000} s`)), LONGEST_MS);
    new MutationObserver((_, observer) => {
      observer.disconnect();
      done(performance.now() - bench.pressed);
    }).observe(stage, { attributeFilter: ["data-image"] });
  });
  bench.scroll = async (selector, cards, step) => {
    const grid = document.querySelector(selector);
    bench.ready();
    let longest = 0;
    const tasks = new PerformanceObserver((list) => {
      for (const one of list.getEntries()) longest = Math.max(longest, one.duration);
    });
    tasks.observe({ entryTypes: ["longtask"] });
    const gaps = [];
    let seen = 0;
    let before = await frame();
    const began = before;
    while (seen < cards && grid.scrollTop + grid.clientHeight < grid.scrollHeight - 1) {
      grid.scrollTop += step;
      const now = await frame();
      gaps.push(now - before);
      before = now;
      const places = [...grid.querySelectorAll(".card")].map((card) => Number(card.getAttribute("aria-posinset")));
      seen = Math.max(seen, ...places);
    }
    const waiting_at_the_end = grid.querySelectorAll(".card.waiting").length;
    const stopped = performance.now();
    const coming = () => grid.querySelector(".card.waiting") || [...grid.querySelectorAll("img")].some((one) => !one.complete);
    while (coming() && performance.now() < stopped + LONGEST_MS) await frame();
    tasks.disconnect();
    return {
      cards: seen,
      seconds: (before - began) / 1000,
      gaps,
      longest_task_ms: longest,
      waiting_at_the_end,
      settled_ms: performance.now() - stopped,
      thumbnails: requests("/media/thumb").length,
    };
  };
})();
