// Before the first paint: dark or light, as the reader chose or else as the system is now. A classic script, so that it blocks.
(() => {
  const root = document.documentElement;
  const light = matchMedia("(prefers-color-scheme: light)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("handloom.theme");
  } catch {
    // Storage may be forbidden: the system's choice holds.
  }
  const show = () => {
    root.dataset.theme = chosen ?? (light.matches ? "light" : "dark");
    window.dispatchEvent(new Event("themechange")); // what is drawn on a canvas has colours of its own
  };
  if (chosen !== "dark" && chosen !== "light") chosen = null;
  light.addEventListener("change", show);
  window.addEventListener("themechoice", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("handloom.theme", chosen);
    } catch {
      // The choice holds until the page is loaded again.
    }
    show();
  });
  show();
})();
