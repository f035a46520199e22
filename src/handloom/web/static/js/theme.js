// Before the first paint: the reader's own choice of dark or light, if there is one. A classic script, so that it blocks.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("handloom.theme");
  } catch {
    // Storage may be forbidden: the system's choice holds.
  }
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
})();
